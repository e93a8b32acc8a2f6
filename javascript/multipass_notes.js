// In words: whose steps, what is wrong or worth knowing, and what the run will cost.
window.multipass = window.multipass || {};

multipass.notes = function(panel) {
    "use strict";

    const {page, plan: plans} = multipass;
    const IN_WHOLE = ["version", "passes", "common", "switch_unit", ...panel.checkboxes.map((own) => own.name)];
    const {bytes, button, element, range, show, t} = multipass.dom;
    const SOURCES = {resident: "in use", ram: "in RAM", disk: "from disk"};
    const summary = element("span", {id: panel.id("summary"), class: "multipass-summary"});
    const list = element("ul", {id: panel.id("notes"), class: "multipass-notes"});
    const cost = element("div", {id: panel.id("cost"), class: "multipass-cost"});
    const message = element("div", {id: panel.id("message"), class: "multipass-message", role: "status"});
    const root = element("div", {class: "multipass-told"},
        element("div", {"aria-live": "polite"}, summary, list), cost, message);

    /** Where a problem is, as [pass, field], by a path like passes[1].switch_at. */
    function placeOf(path) {
        const found = /^passes\[(\d+)\](?:\.(\w+))?/.exec(path);
        return found && [Number(found[1]), found[2]];
    }

    /** The path of what can be left out of the plan and has no widget to empty, undefined for anything else. */
    function withoutWidget(place, path) {
        const plan = panel.plan();
        if (!place) {
            const isOurs = [...IN_WHOLE, ...(page.hasAdetailer(panel.tab) ? ["adetailer"] : [])].includes(path);
            return plan[path] === undefined || isOurs ? undefined : [path];
        }
        const [index, name] = place;
        const has = plan.passes[index]?.[name] !== undefined;
        const field = panel.declared.find((own) => own.name === name);
        return has && !field?.kinds.includes(plans.kindOf(plan, index)) ? ["passes", index, name] : undefined;
    }

    /** What the division of the prompt says for itself, and sooner. */
    const isOfDivision = (told) => told.path in page.TEXTS && !told.ofAdded && panel.plan().prompt_syntax === "scene-break";

    /** One problem in words, as [key, element]; it leads to its field, or takes it away. */
    function note(told, kind) {
        const place = placeOf(told.path);
        const title = place && panel.declared.find((own) => own.name === place[1])?.title;
        const where = place && place[0] < panel.plan().passes.length ?
            [plans.label(panel.plan(), place[0]), title ? t(title) : place[1]].filter(Boolean).join(", ") :
            t(page.TEXTS[told.path] ?? told.path);
        const needless = kind === "multipass-refused" ? withoutWidget(place, told.path) : undefined;
        const key = JSON.stringify([kind, told.path, told.message, where, needless]);
        const make = () => {
            const lead = place && button(undefined, where, "Show this field", () => panel.focus(...place));
            const remove = needless && button(undefined, "Remove it", "Take this out of the plan", () => panel.change(plans.set(panel.plan(), needless, undefined)));
            return element("li", {class: kind, "data-key": key}, lead || where, where ? ": " : "", told.message, remove && " ", remove);
        };
        return [key, make];
    }

    /** Only what is new is put in, so that only that is read aloud. */
    function showNotes(wanted) {
        const keys = new Set(wanted.map(([key]) => key));
        for (const own of [...list.children].filter((item) => !keys.has(item.dataset.key))) {
            own.remove();
        }
        wanted.forEach(([key, make], place) => {
            const there = list.children[place];
            if (there?.dataset.key !== key) {
                list.insertBefore(make(), there || null);
            }
        });
        while (list.children.length > wanted.length) { // were there, but in another order
            list.lastChild.remove();
        }
    }

    function costOf(told) {
        const each = told.checkpoints.map((own) => `${own.checkpoint} ${t(SOURCES[own.source])}${own.source === "disk" ? `, ${bytes(own.nbytes)}` : ""}`);
        const memory = ["ram", "vram"].filter((tier) => told[tier]).map((tier) => {
            const {needed_bytes: needed, budget_bytes: budget, fits} = told[tier];
            const text = `${tier.toUpperCase()} ${bytes(needed)} / ${bytes(budget)}`;
            return element("span", {class: fits ? "" : "multipass-warned"}, text);
        });
        return [element("span", {}, each.join(" \u00b7 ")), ...memory];
    }

    /** How the picture grows, where it does. */
    function sizesOf(told) {
        const each = told.trajectories.filter((own) => own.width).map((own) => `${own.width}\u00d7${own.height}`);
        const changed = each.filter((own, at) => own !== each[at - 1]);
        return changed.length > 1 ? [element("span", {}, changed.join(" \u2192 "))] : [];
    }

    /** The webui's answer about the plan as it is. */
    function take(told) {
        show(summary, "textContent", told?.ok ? told.passes.map((own) => `${own.index === undefined ? own.name : plans.label(panel.plan(), own.index)} ${range(own.first_step, own.end_step)}`).join(", ") : "");
        showNotes([
            ...(told?.errors || []).filter((own) => !isOfDivision(own)).map((own) => note(own, "multipass-refused")),
            ...(told?.warnings || []).map((own) => note(own, "multipass-warned"))]);
        cost.replaceChildren(...(told?.ok && told.cost ? [...sizesOf(told), ...costOf(told.cost)] : []));
    }

    let said = "";
    /** Tell what was just done. It can be undone where `undo` says how. */
    function say(text, undo) {
        if (undo || text !== said) {
            message.replaceChildren(...(text ? [text, undo ? button(panel.id("message_undo"), "Undo", "Undo this", undo) : ""] : []));
        }
        said = text;
    }

    return {placeOf, root, say, take};
};
