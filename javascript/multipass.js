// The panel: what the other files make, put together for a tab. The plan in the hidden field is the only state: every edit
// reads it, changes what was edited and writes it back at once, so nothing that the form does not show is ever lost.
window.multipass = window.multipass || {};

(function() {
    "use strict";

    const LOOK_MS = 500; // how often an open panel looks at the webui's fields
    const SOON_MS = 150; // how long after an edit
    const panels = {};

    function create(tab, root) {
        const {dom, page, plan: plans, server} = multipass;
        const id = (name) => `multipass_${tab}_${name}`;
        const declared = JSON.parse(root.dataset.fields);
        const checkboxes = JSON.parse(root.dataset.checkboxes); // of the whole plan
        const mostPasses = Number(root.dataset.mostPasses);
        const state = multipass.state(tab);
        let chosen = 0;
        let choices;
        let timer;
        let soon;

        const panel = {
            tab, id, declared, checkboxes,
            plan: state.read,
            text: state.text,
            chosen: () => chosen,
            choices: () => choices,
            change(plan, place) {
                state.change(plan, place);
                notes.say("");
                changed();
            },
            choose(index) {
                chosen = index;
                draw();
                look();
            },
            root,
            isFull: (plan) => plan.passes.length >= mostPasses,
            add() {
                const plan = plans.add(panel.plan(), chosen, declared);
                chosen = plan.passes.length - 1;
                panel.change(plan);
            },
            duplicate(index) {
                chosen = index + 1;
                panel.change(plans.duplicate(panel.plan(), index, declared));
            },
            remove(index) {
                const plan = plans.remove(panel.plan(), index, declared);
                chosen = Math.min(chosen > index ? chosen - 1 : chosen, plan.passes.length - 1);
                panel.change(plan);
            },
            move(from, to) {
                const plan = plans.move(panel.plan(), from, to, declared);
                chosen = Math.min(Math.max(to, 0), plan.passes.length - 1);
                panel.change(plan);
            },
            rename(index) {
                panel.choose(index);
                form.focus("name");
            },
            focus(index, name) {
                panel.choose(index);
                form.focus(name);
            },
            setKind: (index, kind) => panel.change(plans.setKind(panel.plan(), index, kind, declared)),
            changeUnit: (path, unit) => edits.changeUnit(path, unit),
            fillFromPage: () => edits.fillFromPage(),
            /** An edit that is said, and can be taken back there. */
            done(plan, text) {
                panel.change(plan);
                notes.say(text, () => step(state.undo));
            },
            replace(plan, text) {
                chosen = 0;
                panel.done(plan, text);
            },
            draw: () => draw(),
            say: (text) => notes.say(text),
            inheritedText: (index, name) => answers.textOf(index, name),
            question: () => answers.question(),
            /** Whether the webui says that it lists no such file, and our list agrees. */
            isGone: (index, name, known) => Boolean(choices) && !known.includes(panel.plan().passes[index][name]) &&
                answers.errors().has(`passes[${index}].${name}`),
            async loadChoices(refresh) {
                try {
                    choices = await server.send("GET", refresh ? "choices?refresh=1" : "choices");
                    draw();
                    look(refresh);
                } catch (error) {
                    notes.say(error.message);
                }
            },
        };

        const timeline = multipass.timeline(panel);
        const pills = multipass.pills(panel);
        const form = multipass.form(panel);
        const whole = multipass.whole(panel, form.widgets);
        const scene = multipass.scene(panel);
        const presets = multipass.presets(panel);
        const notes = multipass.notes(panel);
        const edits = multipass.edits(panel, (plan) => answers.body(plan));
        const undo = dom.tool(id("undo"), "\u21b6", "Undo", () => step(state.undo));
        const redo = dom.tool(id("redo"), "\u21b7", "Redo", () => step(state.redo));
        const split = dom.button(id("split"), "Split the prompt into passes", "Make passes of the prompt editing [from:to:when] in the prompt and the negative prompt above", edits.importPrompt);
        const answers = multipass.answers(panel, state.text, {
            validated(told) {
                timeline.take(told);
                notes.take(told);
                draw();
            },
            texts(told, question) {
                scene.take(told, question);
                draw();
            },
            tokens: (name, count) => form.showTokens(name, count),
            failed: (message) => notes.say(message),
            fieldsChanged: () => draw(),
        });

        function step(back) {
            back();
            notes.say("");
            changed();
        }

        function draw() {
            chosen = Math.min(chosen, panel.plan().passes.length - 1);
            const errors = answers.errors();
            const wrong = new Set([...errors.keys()].map((path) => notes.placeOf(path)?.[0]));
            pills.draw(timeline.rangeOf, wrong);
            timeline.draw();
            form.draw(errors);
            whole.draw();
            scene.draw();
            undo.disabled = !state.canUndo();
            redo.disabled = !state.canRedo();
            const {prompt, negative_prompt} = page.current(tab);
            split.hidden = !/\[[^[\]]*:[^[\]]*\]/.test(`${prompt} ${negative_prompt}`);
        }

        function changed() {
            draw();
            clearTimeout(soon);
            soon = setTimeout(() => look(), SOON_MS);
        }

        /** Nothing is asked while the panel is closed, out of sight or off. */
        function look(anew) {
            if (timer && state.enabled()) {
                answers.ask(anew);
            }
        }

        function watch(visible) {
            clearInterval(timer);
            timer = visible ? setInterval(() => look(), LOOK_MS) : undefined;
            if (visible) {
                if (!choices) {
                    panel.loadChoices();
                }
                look();
            }
        }

        panel.enabled = state.enabled;

        /** Another tab's plan comes along with its picture. */
        panel.receive = function(plan) {
            panel.replace(plan, dom.t("Taken along from txt2img."));
            page.turnOn(tab);
        };

        /** The field was changed by somebody else: a pasted picture, a script. */
        panel.planChanged = function() {
            if (state.tookOver()) {
                notes.say("");
                changed();
            }
        };

        root.setAttribute("role", "group");
        root.setAttribute("aria-label", "Multipass");
        pills.root.append(dom.element("span", {class: "multipass-tools"}, undo, redo, presets.toggle));
        root.replaceChildren(pills.root, presets.root, timeline.root, form.root, split, scene.root, whole.root, notes.root);
        root.addEventListener("keydown", (event) => {
            const typing = event.target.matches("textarea, input[type=text], input[type=number]");
            if (!typing && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
                event.preventDefault();
                step(event.shiftKey ? state.redo : state.undo);
            }
        });
        presets.acceptDrops(root);
        page.whenDone(() => {
            answers.expire();
            look();
        });
        const on = state.begin();
        chosen = panel.plan().passes.length > 1 ? 1 : 0; // the first is the webui's own, the second is what is new
        draw();
        // out of sight are a closed panel, another tab, and what is scrolled away
        new IntersectionObserver((entries) => watch(entries.at(-1).isIntersecting)).observe(root);
        panel.restored = () => [on || state.enabled(), state.text()];
        return panel;
    }

    /** Asked by gradio when the page has come: whether multipass was on, and the plan. */
    multipass.restored = (tab) => loaded.then(() => panels[tab]?.restored() ?? [false, ""]);

    /** Called by gradio when the field changes. */
    multipass.planChanged = (tab) => panels[tab]?.planChanged();

    const loaded = new Promise((resolve) => onUiLoaded(() => {
        for (const tab of ["txt2img", "img2img"]) {
            const root = multipass.page.find(`#multipass_${tab}_form`);
            if (root) {
                try {
                    panels[tab] = create(tab, root);
                } catch (error) { // the other tab's is there all the same
                    console.error(`Multipass: no panel in ${tab}:`, error);
                }
            }
        }
        // the webui copies fields as they are: it would put a plan that is off in the place of one that is not
        for (const target of ["img2img", "inpaint"]) {
            multipass.page.find(`#txt2img_send_to_${target}`)?.addEventListener("click", () => {
                if (panels.txt2img?.enabled()) {
                    panels.img2img?.receive(panels.txt2img.plan());
                }
            });
        }
        resolve();
    }));
})();
