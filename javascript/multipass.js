// The panel's form over the plan in the hidden field. The field is the only state: every edit reads it, changes what
// was edited and writes it back at once, so nothing that the form does not show is ever lost.
(function () {
    "use strict";

    const ADDED = {append: " (appended)", prepend: " (prepended)"};
    const EMPTY_PLAN = {version: 1, passes: [{}, {switch_at: 0.5}]};

    const field = (tab, name) => gradioApp().querySelector(`#multipass_${tab}_${name} textarea, #multipass_${tab}_${name} input`);
    const form = (tab) => gradioApp().querySelector(`#multipass_${tab}_form`);

    function readPlan(tab) {
        try {
            const plan = JSON.parse(field(tab, "plan").value);
            return Array.isArray(plan.passes) && plan.passes.every((own) => own instanceof Object) ? plan : structuredClone(EMPTY_PLAN);
        } catch {
            return structuredClone(EMPTY_PLAN);
        }
    }

    function writePlan(tab, plan) {
        const target = field(tab, "plan");
        target.value = JSON.stringify(plan);
        // gradio 3 and 4 both take the value over on this event, before the handler returns
        target.dispatchEvent(new Event("input", {bubbles: true}));
        form(tab).dataset.drawn = target.value;
    }

    function edit(tab, index, name, value) {
        const plan = readPlan(tab);
        if (value === "" || value === null) {
            delete plan.passes[index][name];
        } else {
            plan.passes[index][name] = value;
        }
        writePlan(tab, plan);
    }

    function element(name, attributes, ...children) {
        const node = document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) {
            node.setAttribute(key, value);
        }
        node.append(...children);
        return node;
    }

    function checkpointInput(tab, index, own) {
        const select = element("select", {});
        const fill = () => {
            const names = JSON.parse(field(tab, "checkpoints").value || "[]");
            const chosen = readPlan(tab).passes[index].checkpoint || "";
            const inherited = index === 0 ? "(the webui's checkpoint)" : "(the pass before's)";
            select.replaceChildren(element("option", {value: ""}, inherited));
            for (const name of names) {
                select.append(element("option", {value: name}, name));
            }
            if (chosen && !names.includes(chosen)) { // listed under another of its names, or gone: kept, and checked when it runs
                select.append(element("option", {value: chosen}, chosen));
            }
            select.value = chosen;
        };
        select.addEventListener("focus", fill);
        select.addEventListener("change", () => edit(tab, index, "checkpoint", select.value));
        fill();
        return select;
    }

    function numberInput(tab, index, own, declared) {
        const unit = readPlan(tab).switch_unit || "steps";
        const fraction = (own.switch_unit || unit) === "steps" || (own.switch_unit || unit) === "timestep";
        const attributes = fraction ? {type: "range", min: 0, max: 1, step: 0.01} : {type: "number", min: 0, step: "any"};
        const input = element("input", attributes);
        const shown = element("output", {});
        input.value = own[declared.name];
        shown.value = input.value;
        input.addEventListener("input", () => {
            shown.value = input.value;
            edit(tab, index, declared.name, input.value === "" ? "" : Number(input.value));
        });
        return element("span", {class: "multipass-number"}, input, ...(fraction ? [shown] : []));
    }

    function textInput(tab, index, own, declared) {
        const inherited = index === 0 ? "as above" : "as pass 1";
        const placeholder = own[declared.name] === "" ? "(empty)" : inherited;
        const input = element("textarea", {rows: 2, placeholder});
        input.value = own[declared.name] || "";
        input.addEventListener("input", () => edit(tab, index, declared.name, input.value));
        return input;
    }

    function passFields(tab, index, own, fields) {
        const title = own.name || `Pass ${index + 1}`;
        const set = element("fieldset", {class: "multipass-pass", "data-pass": index}, element("legend", {}, title));
        for (const declared of fields) {
            if (declared.name === "switch_at" && (index === 0 || (own.kind || "switch") !== "switch")) {
                continue;
            }
            const make = {checkpoint: checkpointInput, switch_at: numberInput}[declared.name] || textInput;
            const input = make(tab, index, own, declared);
            const id = `multipass_${tab}_${index}_${declared.name}`;
            (input.matches("span") ? input.querySelector("input") : input).id = id;
            const added = declared.name.endsWith("prompt") && own[declared.name] ? ADDED[own.prompt_mode] || "" : "";
            const label = element("label", {for: id, title: declared.description}, declared.title + added);
            set.append(element("div", {class: `multipass-field multipass-${declared.name}`}, label, input));
        }
        return set;
    }

    function draw(tab) {
        const fields = JSON.parse(field(tab, "fields").value);
        const preview = element("div", {class: "multipass-preview", "aria-live": "polite"});
        const passes = readPlan(tab).passes.map((own, index) => passFields(tab, index, own, fields));
        form(tab).replaceChildren(...passes, preview);
        form(tab).dataset.drawn = field(tab, "plan").value;
        delete form(tab).dataset.asked;
    }

    // --- which steps would be whose: what the webui announces for the request as it stands in the page ---

    function askedFor(tab) {
        const value = (id) => gradioApp().querySelector(`#${tab}_${id} input[type=number], #${tab}_${id} input:not([type])`)?.value
            ?? gradioApp().querySelector(`#${tab}_${id} input`)?.value;
        const asked = {plan: field(tab, "plan").value, sampler_name: value("sampling"), img2img: tab === "img2img"};
        asked.enable_hr = Boolean(gradioApp().querySelector(`#${tab}_hr-checkbox input`)?.checked); // img2img has none
        for (const name of ["steps", "width", "height", "denoising_strength"]) {
            const given = value(name);
            if (given) {
                asked[name] = Number(given);
            }
        }
        const scheduler = value("scheduler");
        return scheduler ? {...asked, scheduler} : asked;
    }

    function describe(own) {
        const steps = own.end_step - own.first_step;
        return `${own.name}: ${steps ? `steps ${own.first_step + 1}-${own.end_step}` : "no step"}`;
    }

    async function preview(tab) {
        const shown = form(tab)?.querySelector(".multipass-preview");
        if (!shown || !shown.offsetParent) { // a closed panel asks nothing
            return;
        }
        const asked = askedFor(tab);
        const body = JSON.stringify(asked);
        if (!asked.sampler_name || form(tab).dataset.asked === body) {
            return;
        }
        form(tab).dataset.asked = body;
        let told;
        try { // answered once no picture is being made
            const answer = await fetch("./multipass/v1/validate", {method: "POST", body});
            told = await answer.json();
        } catch {
            told = {};
        }
        if (form(tab).dataset.asked !== body) { // changed meanwhile
            return;
        }
        shown.classList.toggle("multipass-refused", told.ok === false);
        const wrong = (told.errors || []).map((error) => (error.path ? `${error.path}: ` : "") + error.message);
        shown.textContent = told.ok ? told.passes.map(describe).join(" · ") : wrong.join("; ");
    }

    // called by gradio when the field changes; our own edits are drawn already, a pasted plan is not
    window.multipassPlanChanged = function (tab) {
        if (form(tab) && form(tab).dataset.drawn !== field(tab, "plan").value) {
            draw(tab);
        }
    };

    onUiLoaded(() => {
        for (const tab of ["txt2img", "img2img"]) {
            if (!form(tab)) {
                continue;
            }
            if (!field(tab, "plan").value) {
                writePlan(tab, EMPTY_PLAN);
            }
            draw(tab);
            // gradio tells nobody of all that changes a field (a pasted picture, a script), so it is looked at
            setInterval(() => preview(tab), 500);
        }
    });
})();
