// What the webui's prompt is divided into: scene BREAK common BREAK subject.
window.multipass = window.multipass || {};

multipass.scene = function(panel) {
    "use strict";

    const {page, plan: plans} = multipass;
    const {button, element, t} = multipass.dom;
    const list = element("ul", {});
    const make = button(panel.id("scene_make"), "Make these passes", "Put the passes that the prompt adds into the plan, to edit each by itself", put);
    const root = element("div", {id: panel.id("scene"), class: "multipass-told", role: "status", hidden: true}, list, make);
    let divided; // the plan with the passes that the prompt adds, if it adds any, and the question it answers

    const line = (name, own) => element("li", {}, element("strong", {}, name), " ", element("span", {}, own.prompt),
        own.negative_prompt ? element("div", {}, `${t("Negative:")} ${own.negative_prompt}`) : undefined);

    const isCurrent = () => divided?.of === panel.question();

    function put() {
        if (isCurrent()) {
            panel.change(divided.plan);
        } else {
            panel.say(t("The prompt has changed meanwhile"));
        }
    }

    /** The plan or the prompt may be another now. */
    function draw() {
        make.hidden = !divided || !isCurrent();
    }

    /** What the webui says of the texts, or what is wrong with them; undefined where it said nothing. `of`: the question. */
    function take(told, of) {
        const isDivided = panel.plan().prompt_syntax === "scene-break" && Boolean(told);
        divided = isDivided && told.plan?.passes.length > panel.plan().passes.length ? {plan: told.plan, of} : undefined;
        root.hidden = !isDivided;
        draw();
        const lines = isDivided && told.errors ?
            told.errors.map((own) => element("li", {class: "multipass-refused"}, own.path ? `${t(page.TEXTS[own.path] ?? own.path)}: ` : "", own.message)) :
            isDivided && told.passes.map((own) => line(`${plans.label(told.plan, own.index)}:`, own));
        list.replaceChildren(...(lines || []));
    }

    return {draw, root, take};
};
