// What holds for the whole plan: how switch points are counted, common texts, what is kept, ADetailer's pass.
window.multipass = window.multipass || {};

multipass.whole = function(panel, widgets) {
    "use strict";

    const {page, plan: plans} = multipass;
    const {element, show, t} = multipass.dom;
    const {LABELS, fill} = widgets;
    const shown = [];

    /** A labelled input whose value is at a path of the plan. */
    function field(name, label, title, input, beside) {
        input.id = panel.id(name);
        const text = element("label", {for: input.id, title}, label);
        shown.push(beside);
        const kind = input.type === "checkbox" ? " multipass-check" : "";
        return element("div", {class: `multipass-field multipass-${name}${kind}`}, element("div", {class: "multipass-label"}, text), input);
    }

    const put = (path, value) => panel.change(plans.set(panel.plan(), path, value), path.join("."));

    function unit() {
        const select = element("select", {onchange: () => panel.changeUnit(["switch_unit"], select.value)});
        const options = ["steps", "timestep", "sigma", "step"].map((value) => [value, t(LABELS[value])]);
        return field("plan_switch_unit", "Switch points are", "How switch_at is read where a pass says nothing else", select,
            (plan) => fill(select, options, plan.switch_unit || "steps"));
    }

    function common(name, label) {
        const input = element("textarea", {rows: 2, oninput: () => put(["common", name], input.value || undefined)});
        return field(`common_${name}`, label, "Joined to the end of every pass's text", input,
            (plan) => show(input, "value", plan.common?.[name] ?? ""));
    }

    function checkbox(name, label, title, path, standard) {
        const input = element("input", {
            type: "checkbox", onchange: () => put(path, input.checked === standard ? undefined : input.checked)
        });
        return field(name, label, title, input, (plan) => {
            const value = path.reduce((inner, own) => inner?.[own], plan);
            show(input, "checked", value ?? standard);
        });
    }

    function syntax() {
        const input = element("input", {
            type: "checkbox", onchange: () => put(["prompt_syntax"], input.checked ? "scene-break" : undefined)
        });
        return field("prompt_syntax", "The prompt is: scene BREAK common BREAK subject", "Each further BREAK begins one more subject; the common part is joined to all. The negative prompt is divided the same way.",
            input, (plan) => show(input, "checked", plan.prompt_syntax === "scene-break"));
    }

    function adetailer() {
        const select = element("select", {
            onchange: () => put(["adetailer", "pass"], select.value === "" ? undefined : Number(select.value))
        });
        const which = field("adetailer_pass", "ADetailer follows", "The pass whose checkpoint ADetailer's tabs use that have none of their own", select, (plan) => {
            const passes = plan.passes.map((_, index) => [String(index), plans.label(plan, index)]);
            fill(select, [["", t("the last pass")], ...passes], String(plan.adetailer?.pass ?? ""));
        });
        const title = "ADetailer's tabs without texts take those of that pass";
        return [which, checkbox("adetailer_prompts", "with its prompts", title, ["adetailer", "prompts"], false)];
    }

    const root = element("details", {id: panel.id("whole"), class: "multipass-more"},
        element("summary", {}, "All passes"),
        element("div", {class: "multipass-grid"},
            syntax(), common("prompt", "Common prompt"), common("negative_prompt", "Common negative prompt"), unit(),
            ...panel.checkboxes.map((own) => checkbox(own.name, own.title, own.description, [own.name], own.default)),
            ...(page.hasAdetailer(panel.tab) ? adetailer() : [])));

    return {root, draw: () => shown.forEach((own) => own(panel.plan()))};
};
