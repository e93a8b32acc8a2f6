// A field's widget from its declaration. Each is {node, show(plan)}: what it shows follows the plan, and what is typed
// into it goes to the plan at once.
window.multipass = window.multipass || {};

multipass.widgets = function(panel) {
    "use strict";

    const {page, plan: plans} = multipass;
    const {element, show, t} = multipass.dom;
    const makeMask = multipass.mask(panel);
    const LABELS = {
        switch: "Switch", refine: "Refine", subject: "Subject", replace: "Replace", append: "Append", prepend: "Prepend",
        all: "All", largest: "The largest", continue: "Go on unchanged", error: "Stop with an error",
        steps: "Fraction of the steps", timestep: "Fraction of the timesteps (as the Refiner)", sigma: "Sigma",
        step: "Step number",
    };
    const inWords = (value) => t(LABELS[value] ?? value); // or as it is, where we know less than the webui
    const ofSubject = (declared) => declared.kinds.every((kind) => kind === "subject"); // such a field is not inherited
    const fraction = (unit) => unit === "steps" || unit === "timestep";

    /** What a pass that leaves the field out gets, as far as the page knows it. */
    function inherited(plan, index, declared) {
        const {name} = declared;
        if (name === "switch_unit") {
            return plan.switch_unit || "steps";
        }
        if (name === "upscaler" && plans.kindOf(plan, index) === "subject") {
            return "Lanczos";
        }
        return plans.inherited(plan, index, name) ?? declared.default ?? page.current(panel.tab)[name];
    }

    function inheritedText(plan, index, declared) {
        const value = inherited(plan, index, declared);
        if (value === undefined) {
            return t({vae: "the webui's rule", target: "the mask"}[declared.name] ?? "inherited");
        }
        return `${declared.enum ? inWords(value) : value} (${t(ofSubject(declared) ? "default" : "inherited")})`;
    }

    function edit(index, declared, value) {
        panel.change(plans.setField(panel.plan(), index, declared.name, value), `${index}.${declared.name}`);
    }

    function fill(select, options, value) {
        const signature = JSON.stringify(options);
        if (select.dataset.options !== signature) {
            select.dataset.options = signature;
            select.replaceChildren(...options.map(([own, text]) => element("option", {value: own}, text)));
        }
        show(select, "value", value);
        select.classList.toggle("multipass-inherited", value === "");
    }

    function enumSelect(id, index, declared, change) {
        const select = element("select", {id, onchange: () => change(select.value || undefined)});
        const fixed = {prompt_mode: "replace", kind: "switch"}[declared.name]; // what leaving it out is, in one word
        return {
            node: select,
            input: select,
            show: (plan) => {
                const own = plan.passes[index][declared.name];
                const options = declared.enum.map((value) => [value, inWords(value)]);
                fill(select, fixed ? options : [["", inheritedText(plan, index, declared)], ...options], own ?? fixed ?? "");
            },
        };
    }

    /** From a list that the webui has. What the plan names stays, listed or not. */
    function choice(id, index, declared) {
        const select = element("select", {id, onchange: () => edit(index, declared, select.value || undefined)});
        window.ignore_ids_for_localization[id] = "OPTION"; // names of files are nobody's to translate
        const named = {checkpoint: "Refresh the list of checkpoints", vae: "Refresh the list of VAEs"}[declared.name];
        const refresh = named && multipass.dom.tool(`${id}_refresh`, "\u{1f504}", named, () => panel.loadChoices(true));
        return {
            node: element("span", {class: "multipass-choice"}, select, refresh),
            input: select,
            show: (plan) => {
                const kind = plans.kindOf(plan, index);
                // subjects are repainted in pictures
                const names = (panel.choices()?.[declared.choices] || []).filter((own) => !(kind === "subject" && own.latent));
                const known = names.map((own) => own.name ?? own);
                const own = plan.passes[index][declared.name];
                const gone = own !== undefined && panel.isGone(index, declared.name, known);
                const options = [["", inheritedText(plan, index, declared)], ...known.map((name) => [name, name])];
                if (own !== undefined && !known.includes(own)) {
                    options.push([own, gone ? `${own} (${t("not found")})` : own]);
                }
                fill(select, options, own ?? "");
                select.classList.toggle("multipass-gone", gone);
                const useless = panel.choices() && !known.length && own === undefined; // a VAE of its own, on Forge
                select.closest(".multipass-field").hidden = Boolean(useless);
            },
        };
    }

    function parsed(input) {
        return input.value === "" ? undefined : Number(input.value);
    }

    function number(id, index, declared) {
        const unit = plans.unitOf(panel.plan(), index);
        const isSwitch = declared.name === "switch_at";
        const whole = declared.type === "integer" || (isSwitch && unit === "step");
        const low = isSwitch ? 0 : declared.minimum;
        const high = isSwitch ? (fraction(unit) ? 1 : undefined) : declared.maximum;
        const step = whole ? 1 : high <= 1 ? 0.01 : high <= 10 ? 0.05 : 0.5;
        const typed = (event) => edit(index, declared, parsed(event.target));
        const input = element("input", {id, type: "number", min: low, max: high, step, oninput: typed});
        const slider = low === 0 && high === 1 && element("input", {
            id: `${id}_slider`, type: "range", min: low, max: high, step, oninput: typed, "aria-label": declared.title
        });
        return {
            node: element("span", {class: "multipass-number"}, slider || undefined, input),
            input,
            show: (plan) => {
                const own = plan.passes[index][declared.name];
                const otherwise = isSwitch ? undefined : inherited(plan, index, declared);
                if (parsed(input) !== own) { // not while "0." becomes "0.5"
                    input.value = own ?? "";
                }
                show(input, "placeholder", otherwise === undefined ? "" : String(otherwise));
                if (slider) {
                    slider.value = own ?? otherwise ?? 0;
                    slider.classList.toggle("multipass-inherited", own === undefined);
                }
            },
        };
    }

    /** In place of a pass's own text: what it inherits, or that it has none. */
    function instead(own, otherwise) {
        return own === "" || otherwise === "" ? t("(empty)") : otherwise ?? t("inherited");
    }

    function text(id, index, declared) {
        const isPrompt = declared.name.endsWith("prompt");
        const input = element(isPrompt ? "textarea" : "input", {
            id, rows: isPrompt ? 2 : undefined, type: isPrompt ? undefined : "text", spellcheck: "false",
            oninput: () => edit(index, declared, input.value || undefined)
        });
        return {
            node: input,
            input,
            show: (plan) => {
                const own = plan.passes[index][declared.name];
                show(input, "value", own ?? "");
                show(input, "placeholder", isPrompt ? instead(own, panel.inheritedText(index, declared.name)) : plans.label({passes: {[index]: {}}}, index));
            },
        };
    }

    function checkbox(id, index, declared) {
        const standard = declared.default ?? true;
        const input = element("input", {
            id, type: "checkbox", onchange: () => edit(index, declared, input.checked === standard ? undefined : input.checked)
        });
        return {node: input, input, show: (plan) => show(input, "checked", plan.passes[index][declared.name] ?? standard)};
    }

    /** Which of those that were found: by a word, or by their place from left to right, counted from 0 in the plan. */
    function which(id, index, declared) {
        const MOST = 8; // that are offered; a plan can say another
        const value = () => (/^\d+$/.test(select.value) ? Number(select.value) : select.value || undefined);
        const select = element("select", {id, onchange: () => edit(index, declared, value())});
        return {
            node: select,
            input: select,
            show: (plan) => {
                const own = plan.passes[index].which;
                const offered = [...Array(MOST).keys()];
                const others = Number.isInteger(own) && !offered.includes(own) ? [own] : [];
                const places = [...offered, ...others].map((place) => [String(place), `${t("From the left, number")} ${place + 1}`]);
                const words = declared.enum.map((word) => [word, inWords(word)]);
                fill(select, [["", inheritedText(plan, index, declared)], ...words, ...places], String(own ?? ""));
                select.disabled = plan.passes[index].mask !== undefined;
            },
        };
    }

    /** The widget of a declared field for the pass at a place. */
    function make(index, declared) {
        const id = panel.id(declared.name);
        if (declared.choices) {
            return choice(id, index, declared);
        }
        if (declared.name === "kind") {
            return enumSelect(id, index, declared, (kind) => panel.setKind(index, kind));
        }
        if (declared.name === "which") {
            return which(id, index, declared);
        }
        if (declared.name === "mask") {
            return makeMask(id, index, (value) => edit(index, declared, value));
        }
        if (declared.name === "switch_unit") {
            return enumSelect(id, index, declared, (unit) => panel.changeUnit(["passes", index, "switch_unit"], unit));
        }
        if (declared.enum) {
            return enumSelect(id, index, declared, (value) => edit(index, declared, value === "replace" ? undefined : value));
        }
        return ({boolean: checkbox, integer: number, number}[declared.type] || text)(id, index, declared);
    }

    return {LABELS, fill, make};
};
