// The plan of a tab: the text in the hidden field is the only state. Beside it only what was there before (undo) and a
// copy in the browser's storage.
window.multipass = window.multipass || {};

multipass.state = function(tab) {
    "use strict";

    const {plan: plans, page} = multipass;
    const MOST_UNDONE = 100;
    const TYPING_MS = 2000; // edits of one place within this time are undone at once
    const KEY = `multipass_${tab}`;
    const field = () => page.find(`#multipass_${tab}_plan textarea, #multipass_${tab}_plan input`);
    const undone = [];
    const done = [];
    let known; // the text as we know it
    let last = {place: undefined, at: 0};

    const enabled = () => page.isOn(tab);

    function keep() {
        try {
            localStorage.setItem(KEY, JSON.stringify({plan: known, enabled: enabled()}));
        } catch (error) {
            console.warn("Multipass: the browser keeps nothing:", error);
        }
    }

    function kept() {
        try {
            return JSON.parse(localStorage.getItem(KEY)) || {};
        } catch {
            return {};
        }
    }

    function write(text) {
        known = text;
        field().value = text;
        // gradio 3 and 4 both take the value over on this event, before the handler returns
        field().dispatchEvent(new Event("input", {bubbles: true}));
        keep();
    }

    const read = () => plans.parse(field().value) || plans.copy(plans.NEW_PLAN);

    function remember(place) {
        const now = Date.now();
        if (place === undefined || place !== last.place || now - last.at > TYPING_MS) {
            done.push(known);
            done.splice(0, done.length - MOST_UNDONE);
        }
        undone.length = 0;
        last = {place, at: now};
    }

    /** Write a plan. Edits of one `place` in a row, as when typing, are one step of undo. */
    function change(plan, place) {
        const text = JSON.stringify(plan);
        if (text !== known) {
            remember(place);
            write(text);
        }
    }

    /** Whether the field was changed by somebody else (a pasted picture): that can be undone too. */
    function tookOver() {
        const text = field().value;
        if (text === known || !text) {
            return false;
        }
        remember();
        known = text;
        keep();
        return true;
    }

    function step(from, to) {
        if (from.length) {
            to.push(known);
            last = {place: undefined, at: 0};
            write(from.pop());
        }
    }

    /** What the browser kept, unless the page has a plan already. Returns whether multipass was on. */
    function begin() {
        const before = kept();
        const first = field().value || (plans.parse(before.plan) ? before.plan : JSON.stringify(plans.NEW_PLAN));
        const on = before.enabled === true;
        write(first);
        page.whenTurned(tab, keep);
        return on;
    }

    return {
        begin, change, enabled, read, tookOver,
        text: () => known,
        undo: () => step(done, undone),
        redo: () => step(undone, done),
        canUndo: () => done.length > 0,
        canRedo: () => undone.length > 0,
    };
};
