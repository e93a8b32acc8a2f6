// Edits of the plan that need more than the plan: the tab's own fields, or an answer of the webui's.
window.multipass = window.multipass || {};

/** @param bodyOf what `validate` is asked about a plan. */
multipass.edits = function(panel, bodyOf) {
    "use strict";

    const {page, plan: plans, server} = multipass;
    const {t} = multipass.dom;

    const validated = (plan) => server.send("POST", "validate", bodyOf(plan));

    /** The plan in another unit, with the boundaries where they were: the webui says what they are called then. */
    async function inUnit(before, path, unit) {
        let plan = plans.set(before, path, unit);
        const moved = before.passes.flatMap((own, index) => (
            own.switch_at !== undefined && plans.unitOf(before, index) !== plans.unitOf(plan, index) ? [index] : []));
        if (moved.length) {
            // those that are off have boundaries too
            const steps = await validated(plans.allOn(before));
            const points = await validated(plans.fromTheStart(plans.allOn(plan)));
            for (const index of moved) {
                const step = steps.passes.find((other) => other.index === index).first_step;
                const {switch_at} = points.passes.find((other) => other.index === index);
                plan = plans.set(plan, ["passes", index, "switch_at"], switch_at[step]);
            }
        }
        return plan;
    }

    async function changeUnit(path, unit) {
        const before = panel.text();
        try {
            const plan = await inUnit(panel.plan(), path, unit);
            if (panel.text() !== before) {
                throw new Error(t("the plan has changed meanwhile"));
            }
            panel.change(plan);
        } catch (error) {
            panel.draw();
            panel.say(`${t("The unit stays:")} ${error.message}`);
        }
    }

    /** From the tab's own fields, what the pass's kind can have. */
    function fillFromPage() {
        let plan = panel.plan();
        const index = panel.chosen();
        const kind = plans.kindOf(plan, index);
        for (const [name, value] of Object.entries(page.current(panel.tab))) {
            if (name !== "denoising_strength" && plans.mayHave(panel.declared, kind, name)) {
                plan = plans.set(plan, ["passes", index, name], value === "" ? undefined : value);
            }
        }
        plan = plans.set(plan, ["passes", index, "prompt_mode"], undefined); // these are the whole texts
        panel.done(plan, t("Filled from the current settings."));
    }

    /** Passes of the prompt editing in the tab's prompts. */
    async function importPrompt() {
        const {prompt, negative_prompt, steps, sampler_name} = page.current(panel.tab);
        try {
            const told = await server.send("POST", "import/prompt", JSON.stringify({prompt, negative_prompt, steps, sampler_name}));
            if (told.passes.length < 2) {
                panel.say(t("Nothing in the prompt changes on the way, so no passes were made of it."));
                return;
            }
            const said = [`${t("Passes made of the prompt:")} ${told.passes.length}.`];
            if (page.hasStyles(panel.tab)) {
                said.push(t("The chosen styles are not in their texts."));
            }
            if (panel.tab === "img2img") {
                said.push(t("They begin elsewhere: a prompt's editing counts over all steps, passes over those that run."));
            }
            panel.done(plans.imported(panel.plan(), told), said.join(" "));
        } catch (error) {
            panel.say(error.message);
        }
    }

    return {changeUnit, fillFromPage, importPrompt};
};
