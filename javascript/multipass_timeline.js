// Which steps are whose: a bar for each trajectory, as `validate` announced them. Nothing is reckoned here; a boundary is
// moved by writing the `switch_at` that the webui gave for that step.
window.multipass = window.multipass || {};

multipass.timeline = function(panel) {
    "use strict";

    const {plan: plans} = multipass;
    const {element, hue, range, show, t} = multipass.dom;
    const root = element("div", {
        id: panel.id("timeline"), class: "multipass-timeline", role: "group", "aria-label": "Steps of each pass"
    });
    let announced; // the newest good answer, and what it was about
    let about;
    let drawn; // what the elements are for
    let parts = [];

    const percent = (step, steps) => `${steps ? 100 * step / steps : 0}%`;

    /** The steps at which a pass may begin without a boundary going backwards. */
    function bounds(told) {
        const {steps} = announced.trajectories[told.trajectory];
        const others = announced.passes.filter((own) => own.trajectory === told.trajectory && own.switch_at);
        const at = others.indexOf(told);
        return [at > 0 ? others[at - 1].first_step : 0, at + 1 < others.length ? others[at + 1].first_step : steps];
    }

    function moveTo(told, step) {
        const [low, high] = bounds(told);
        const to = Math.min(Math.max(step, low), high);
        if (to === told.first_step) {
            return;
        }
        const before = announced.passes[announced.passes.indexOf(told) - 1];
        before.end_step = told.first_step = to; // shown until the webui has answered
        panel.change(plans.set(panel.plan(), ["passes", told.index, "switch_at"], told.switch_at[to]), `${told.index}.switch_at`);
    }

    function handle(index, track) {
        const told = () => announced.passes.find((own) => own.index === index);
        const steps = () => announced.trajectories[told().trajectory].steps;
        const at = (event) => {
            const box = track.getBoundingClientRect();
            return Math.round((event.clientX - box.left) / box.width * steps());
        };
        const slider = element("div", {
            id: panel.id(`boundary_${index}`), class: "multipass-boundary", role: "slider", tabindex: 0,
            "aria-orientation": "horizontal", title: "Drag, or press the arrow keys, to move where the pass begins",
            onpointerdown: (event) => {
                slider.setPointerCapture(event.pointerId);
                panel.choose(index);
            },
            onpointermove: (event) => slider.hasPointerCapture(event.pointerId) && moveTo(told(), at(event)),
            onkeydown: (event) => {
                const far = Math.max(1, Math.round(steps() / 10));
                const by = {
                    ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: far, PageDown: -far,
                    Home: -Infinity, End: Infinity
                }[event.key];
                if (by) {
                    event.preventDefault();
                    moveTo(told(), told().first_step + by);
                }
            },
        });
        slider.style.cssText = hue(index);
        return slider;
    }

    function build() {
        const tracks = announced.trajectories.map(() => element("div", {class: "multipass-track"}));
        parts = announced.passes.map((told) => {
            const track = tracks[told.trajectory];
            const segment = element("div", {
                class: "multipass-segment", "data-pass": told.index, onclick: () => panel.choose(told.index)
            }, element("span"), element("span", {class: "multipass-range"}));
            track.append(segment);
            return {segment, slider: told.switch_at && handle(told.index, track)};
        });
        announced.passes.forEach((told, at) => parts[at].slider && tracks[told.trajectory].append(parts[at].slider));
        root.replaceChildren(...tracks);
    }

    const isKnown = () => announced && about === plans.shape(panel.plan());

    function draw() {
        root.hidden = !announced;
        root.inert = !isKnown(); // until the webui has answered
        if (root.inert) {
            return;
        }
        const shape = JSON.stringify([announced.trajectories.length, announced.passes.map((own) => [own.index, own.trajectory, Boolean(own.switch_at)])]);
        if (shape !== drawn) {
            drawn = shape;
            build();
        }
        announced.passes.forEach((told, at) => {
            const {steps} = announced.trajectories[told.trajectory];
            const {segment, slider} = parts[at];
            const name = plans.label(panel.plan(), told.index);
            const whose = range(told.first_step, told.end_step);
            segment.parentElement.style.flexGrow = Math.max(steps, 1);
            segment.style.cssText = hue(told.index);
            segment.style.left = percent(told.first_step, steps);
            segment.style.width = percent(told.end_step - told.first_step, steps);
            segment.classList.toggle("multipass-chosen", told.index === panel.chosen());
            show(segment, "title", `${name} ${whose}`);
            show(segment.children[0], "textContent", name);
            show(segment.children[1], "textContent", whose);
            if (slider) {
                const [low, high] = bounds(told);
                slider.style.left = percent(told.first_step, steps);
                slider.setAttribute("aria-label", `${t("Where it begins:")} ${name}`);
                slider.setAttribute("aria-valuemin", low);
                slider.setAttribute("aria-valuemax", high);
                slider.setAttribute("aria-valuenow", told.first_step);
                slider.setAttribute("aria-valuetext", `${t("after step")} ${told.first_step} / ${steps}`);
            }
        });
    }

    /** Without the passes that the prompt adds, which are trajectories of their own. */
    function ofThePlan(answer) {
        const passes = answer.passes.filter((own) => own.index !== undefined);
        const kept = [...new Set(passes.map((own) => own.trajectory))];
        return {
            trajectories: kept.map((number) => answer.trajectories[number]),
            passes: passes.map((own) => ({...own, trajectory: kept.indexOf(own.trajectory)})),
        };
    }

    /** The webui's answer; one that refuses the plan leaves the bars of the same passes as they were, greyed. */
    function take(answer) {
        if (answer?.ok) {
            announced = ofThePlan(answer);
            about = plans.shape(panel.plan());
        } else if (answer && !isKnown()) {
            announced = undefined;
        }
        root.classList.toggle("multipass-stale", !answer?.ok);
        draw();
    }

    /** A pass's steps, for people, where the webui announced some. */
    function rangeOf(index) {
        const told = isKnown() && announced.passes.find((own) => own.index === index);
        return told && range(told.first_step, told.end_step);
    }

    return {draw, rangeOf, root, take};
};
