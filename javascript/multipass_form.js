// The chosen pass: everything it can have. What most plans need is seen at once, the rest below "More".
window.multipass = window.multipass || {};

multipass.form = function(panel) {
    "use strict";

    const {plan: plans} = multipass;
    const {button, element, show, t, tool} = multipass.dom;
    const widgets = multipass.widgets(panel);
    const AT_ONCE = {
        first: ["checkpoint", "prompt", "negative_prompt"],
        switch: ["checkpoint", "switch_at", "prompt", "negative_prompt"],
        refine: ["checkpoint", "denoising_strength", "scale", "prompt", "negative_prompt"],
        subject: ["checkpoint", "denoising_strength", "target", "which", "mask", "prompt", "negative_prompt"],
    };
    const IN_HEAD = ["name", "kind", "enabled"];
    const WITH_PROMPT = "prompt_mode";
    const root = element("div", {id: panel.id("pass"), class: "multipass-pass", role: "tabpanel"});
    let drawn;
    let shown = [];
    let more = false;

    function labelled(index, declared, ...beside) {
        const own = widgets.make(index, declared);
        const error = element("div", {class: "multipass-error", id: panel.id(`${declared.name}_error`)});
        own.input.setAttribute("aria-describedby", error.id);
        const label = element("label", {for: own.input.id, title: declared.description}, declared.title);
        const row = element("div", {class: "multipass-label"}, label, ...beside);
        shown.push({...own, name: declared.name, error});
        return element("div", {class: `multipass-field multipass-${declared.name}`}, row, own.node, error);
    }

    function counter(name) {
        return element("span", {id: panel.id(`${name}_tokens`), class: "multipass-tokens", title: "Tokens of the whole text"});
    }

    function field(index, declared) {
        if (!declared.name.endsWith("prompt")) {
            return labelled(index, declared);
        }
        const mode = panel.declared.find((own) => own.name === WITH_PROMPT);
        if (declared.name !== "prompt") {
            return labelled(index, declared, counter(declared.name));
        }
        const own = widgets.make(index, mode);
        own.input.setAttribute("aria-label", t(mode.title));
        own.input.title = t(mode.description);
        shown.push({...own, name: mode.name});
        return labelled(index, declared, own.node, counter(declared.name));
    }

    function head(index, kind) {
        const of = (name) => panel.declared.find((own) => own.name === name);
        const bare = (name) => {
            const own = widgets.make(index, of(name));
            own.input.setAttribute("aria-label", t(of(name).title));
            own.input.title = t(of(name).description);
            shown.push({...own, name});
            return own.node;
        };
        const on = element("label", {class: "multipass-enabled", for: panel.id("enabled"), title: of("enabled").description}, bare("enabled"), element("span", {}, "On"));
        return element("div", {class: "multipass-head"},
            bare("name"), kind === "first" ? undefined : bare("kind"), on,
            element("span", {class: "multipass-tools"},
                tool(panel.id("move_left"), "\u2190", "Move the pass to the left", () => panel.move(panel.chosen(), panel.chosen() - 1)),
                tool(panel.id("move_right"), "\u2192", "Move the pass to the right", () => panel.move(panel.chosen(), panel.chosen() + 1)),
                tool(panel.id("duplicate"), element("span", {class: "multipass-copied"}), "Duplicate the pass", () => panel.duplicate(panel.chosen())),
                tool(panel.id("remove"), "\u00d7", "Remove the pass", () => panel.remove(panel.chosen()))));
    }

    function build(index, kind) {
        shown = [];
        const may = panel.declared.filter((own) => own.kinds.includes(kind) && !IN_HEAD.includes(own.name) && own.name !== WITH_PROMPT);
        const atOnce = AT_ONCE[kind].map((name) => may.find((own) => own.name === name));
        const rest = may.filter((own) => !atOnce.includes(own));
        const fill = button(panel.id("from_current"), "From current settings", "Take over the checkpoint, the texts and the settings above, as far as this kind of pass has them", () => panel.fillFromPage());
        const disclosure = element("details", {id: panel.id("more"), class: "multipass-more", ontoggle: () => (more = disclosure.open)},
            element("summary", {}, "More"), element("div", {class: "multipass-grid"}, ...rest.map((own) => field(index, own))), fill);
        disclosure.open = more;
        root.replaceChildren(head(index, kind), element("div", {class: "multipass-grid"}, ...atOnce.map((own) => field(index, own))), disclosure);
        root.setAttribute("aria-labelledby", panel.id(`pill_${index}`));
    }

    function draw(errors) {
        const plan = panel.plan();
        const index = panel.chosen();
        const kind = plans.kindOf(plan, index);
        const focused = root.contains(document.activeElement) && document.activeElement.id;
        const shape = JSON.stringify([index, kind, plans.unitOf(plan, index)]);
        if (shape !== drawn) {
            build(index, kind);
            drawn = shape;
        }
        root.style.cssText = multipass.dom.hue(index);
        for (const own of shown) {
            own.show(plan);
            if (own.error) {
                const wrong = errors.get(`passes[${index}].${own.name}`);
                show(own.error, "textContent", wrong || "");
                own.input.setAttribute("aria-invalid", Boolean(wrong));
            }
        }
        const inside = (name) => root.querySelector(`#${panel.id(name)}`);
        inside("move_left").disabled = index === 0;
        inside("move_right").disabled = index === plan.passes.length - 1;
        inside("duplicate").disabled = panel.isFull(plan);
        inside("remove").disabled = plan.passes.length === 1;
        if (focused) { // the keyboard goes on where it was, in what was built anew
            const own = root.querySelector(`#${focused}`);
            (own && !own.disabled ? own : inside("name")).focus();
        }
    }

    /** How long a text is: a count and a limit, neither where nobody knows. */
    function showTokens(name, told) {
        show(root.querySelector(`#${panel.id(`${name}_tokens`)}`), "textContent", told?.limit ? `${told.count}/${told.limit}` : "");
    }

    /** Put the focus on a field of the chosen pass, wherever it is. */
    function focus(name) {
        const own = shown.find((found) => found.name === name);
        if (own?.input.closest("details")) {
            own.input.closest("details").open = true;
        }
        own?.input.focus();
        if (own?.input.select) {
            own.input.select();
        }
    }

    return {draw, focus, root, showTokens, widgets};
};
