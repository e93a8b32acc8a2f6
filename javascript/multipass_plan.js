// Edits of a plan: pure functions from plans, as JSON has them, to new ones. Nothing here knows the page.
window.multipass = window.multipass || {};

multipass.plan = (function() {
    "use strict";

    const KINDS = ["switch", "refine", "subject"];
    const NEW_PLAN = {version: 1, passes: [{}, {switch_at: 0.5}]};
    // what a pass of that kind needs and has no other word for
    const NEEDED = {refine: {denoising_strength: 0.35}, subject: {target: "person", denoising_strength: 0.5}};
    const FAR_SIGMA = 1e6; // no schedule begins with more
    // where a unit's range of switch points begins and ends in the order of steps
    const ENDS = {steps: [0, 1], timestep: [0, 1], sigma: [15, 0]};

    const copy = (value) => JSON.parse(JSON.stringify(value));
    const kindOf = (plan, index) => (index === 0 ? "first" : plan.passes[index].kind || "switch");
    const unitOf = (plan, index) => plan.passes[index].switch_unit || plan.switch_unit || "steps";
    const label = (plan, index) => plan.passes[index].name || `Pass ${index + 1}`;
    /** What the passes of a plan are; as long as it stays, what was announced for one is about the same pass. */
    const shape = (plan) => JSON.stringify(plan.passes.map((own, index) => [kindOf(plan, index), own.enabled !== false, unitOf(plan, index)]));
    const without = (own, names) => Object.fromEntries(Object.entries(own).filter(([name]) => !names.includes(name)));
    const only = (own, names) => Object.fromEntries(Object.entries(own).filter(([name]) => names.includes(name)));

    const mayHave = (declared, kind, name) => {
        const field = declared.find((own) => own.name === name);
        return !field || field.kinds.includes(kind);
    };
    // what says how a pass continues the picture: it stays with the place when passes change theirs
    const ofThePlace = (declared) => declared.filter((own) => own.name === "kind" ||
        ["first", "switch", "refine"].some((kind) => !own.kinds.includes(kind))).map((own) => own.name);

    const isObject = (value) => value instanceof Object && !Array.isArray(value);
    const isAbsent = (value) => value === undefined || value === null;

    /** The plan in a text, or undefined where it is none that the form could show. */
    function parse(text) {
        try {
            const plan = JSON.parse(text);
            const isShown = Array.isArray(plan.passes) && plan.passes.length &&
                plan.passes.every((own) => isObject(own) && (isAbsent(own.kind) || KINDS.includes(own.kind))) &&
                [plan.common, plan.adetailer].every((own) => isAbsent(own) || isObject(own));
            return isShown ? plan : undefined;
        } catch {
            return undefined;
        }
    }

    /** With another value at a path like ["passes", 1, "prompt"]; undefined leaves it out, and what is empty then. */
    function set(plan, path, value) {
        const changed = copy(plan);
        const [name, ...rest] = path;
        if (rest.length) {
            changed[name] = set(changed[name] || {}, rest, value);
            if (!Array.isArray(plan) && name !== "passes" && !Object.keys(changed[name]).length) {
                delete changed[name];
            }
        } else if (value === undefined) {
            delete changed[name];
        } else {
            changed[name] = value;
        }
        return changed;
    }

    /** How many of its passes have the place that they have in a plan to which the prompt has added some: those up to the
     * end of the last subject pass's trajectory, or all where the first of them comes at the end. */
    function unmoved(plan, longer) {
        const last = plan.passes.findLastIndex((own, index) => own.enabled !== false && kindOf(plan, index) === "subject");
        const next = plan.passes.findIndex((own, index) => index > last && own.enabled !== false && kindOf(plan, index) === "refine");
        return last < 0 || next < 0 || longer.passes.length === plan.passes.length ? plan.passes.length : next;
    }

    /** What `validate` tells, by the places that passes have in the plan itself. Those that the prompt adds have none: they
     * are without an index, and what is wrong with them, which is `ofAdded`, is about the prompt. */
    function inOwnPlaces(told) {
        const placeOf = (index) => (told.added.includes(index) ? undefined : index - told.added.filter((own) => own < index).length);
        const moved = (problem) => {
            const [, index, rest] = /^passes\[(\d+)\](.*)$/.exec(problem.path) || [];
            if (index === undefined) {
                return problem;
            }
            const place = placeOf(Number(index));
            return place === undefined ? {...problem, path: "prompt", ofAdded: true} : {...problem, path: `passes[${place}]${rest}`};
        };
        return {
            ...told,
            passes: told.passes?.map((own) => ({...own, index: placeOf(own.index)})),
            errors: told.errors?.map(moved),
            warnings: told.warnings?.map(moved),
        };
    }

    /** With a field of a pass changed, without what that makes meaningless there. */
    function setField(plan, index, name, value) {
        const gone = value === undefined ? undefined : {
            mask: ["target", "which", "on_missing"], target: ["mask"], only_masked: ["width", "height", "mask_padding"]
        }[name];
        let changed = set(plan, ["passes", index, name], value);
        if (name === "mask" && value === undefined) {
            changed = set(changed, ["passes", index, "target"], NEEDED.subject.target);
        }
        for (const own of gone || []) {
            changed = set(changed, ["passes", index, own], undefined);
        }
        return changed;
    }

    /** What a pass does not say itself, as far as the plan says it. Texts are joined by the webui, not here. */
    function inherited(plan, index, name) {
        const chained = name === "checkpoint";
        if (!chained && !["cfg_scale", "clip_skip", "steps", "sampler_name", "scheduler", "denoising_strength"].includes(name)) {
            return undefined;
        }
        const first = plan.passes.findIndex((own) => own.enabled !== false);
        for (let before = index - 1; before >= 0; before--) {
            const own = plan.passes[before];
            const asked = own.enabled !== false && (chained || before === first || kindOf(plan, before) !== "switch");
            if (asked && own[name] !== undefined) {
                return own[name];
            }
        }
        return undefined;
    }

    /** Where a switch pass may begin so that it shares the steps with the one before it. */
    function halfway(plan, index) {
        const unit = unitOf(plan, index);
        const point = (at) => (unitOf(plan, at) === unit ? plan.passes[at].switch_at : undefined);
        let [low, high] = ENDS[unit] || [0, undefined];
        if (kindOf(plan, index - 1) === "switch") {
            low = point(index - 1) ?? low;
        }
        if (index + 1 < plan.passes.length && kindOf(plan, index + 1) === "switch") {
            high = point(index + 1) ?? high;
        }
        if (unit === "step") {
            return high === undefined ? low + 1 : Math.floor((low + high) / 2);
        }
        const middle = Math.round(50 * (low + high)) / 100;
        return Math.min(Math.max(middle, Math.min(low, high)), Math.max(low, high));
    }

    const eachPass = (plan, change) => ({...plan, passes: plan.passes.map(change)});
    const allOn = (plan) => eachPass(plan, (own) => without(own, ["enabled"]));
    /** Every switch point where its trajectory begins, which is a question that any unit can be asked. */
    const fromTheStart = (plan) => eachPass(plan, (own, index) => (own.switch_at === undefined ? own :
        {...own, switch_at: unitOf(plan, index) === "sigma" ? FAR_SIGMA : 0}));

    function fitted(own, kind, declared) {
        const kept = Object.fromEntries(Object.entries(own).filter(([name]) => mayHave(declared, kind, name)));
        if (kind === "refine" || kind === "subject") {
            return {...kept, kind};
        }
        return without(kept, ["kind"]);
    }

    function setKind(plan, index, kind, declared) {
        const changed = copy(plan);
        const own = changed.passes[index] = fitted(plan.passes[index], kind, declared);
        if (kind === "switch") {
            own.switch_at = halfway(changed, index);
        } else {
            changed.passes[index] = {...NEEDED[kind], ...own};
        }
        return changed;
    }

    /** ADetailer's pass is told by its place: it goes along. */
    function followed(plan, placeOf) {
        const told = plan.adetailer;
        if (!told || told.pass === undefined || told.pass === null) {
            return plan;
        }
        return set(plan, ["adetailer", "pass"], placeOf(told.pass));
    }

    function nameOfCopy(name) {
        const [, stem, number] = /^([^]*?)(?: (\d+))?$/.exec(name);
        return `${stem.slice(0, 74)} ${Number(number || 1) + 1}`;
    }

    /** A copy of a pass, put in at a place after the first. */
    function insertCopy(plan, index, at, declared) {
        const changed = followed(copy(plan), (place) => (place >= at ? place + 1 : place));
        const kind = index === 0 ? "switch" : kindOf(plan, index);
        const own = fitted(copy(plan.passes[index]), kind, declared);
        if (own.name) {
            own.name = nameOfCopy(own.name);
        }
        changed.passes.splice(at, 0, own);
        if (kind === "switch") {
            own.switch_at = halfway(changed, at);
        }
        return changed;
    }

    const duplicate = (plan, index, declared) => insertCopy(plan, index, index + 1, declared);
    const add = (plan, index, declared) => insertCopy(plan, index, plan.passes.length, declared);

    function remove(plan, index, declared) {
        if (plan.passes.length === 1) {
            return plan;
        }
        const changed = followed(copy(plan), (place) => (place === index ? undefined : place > index ? place - 1 : place));
        changed.passes.splice(index, 1);
        if (index === 0) {
            changed.passes[0] = fitted(changed.passes[0], "first", declared);
        }
        return changed;
    }

    /**
     * A pass moved to another place. Within a trajectory the switch points stay where they are and the passes change
     * places between them; so they do where the first pass is one of them, which can have none.
     */
    function move(plan, from, to, declared) {
        if (from === to || to < 0 || to >= plan.passes.length) {
            return plan;
        }
        const low = Math.min(from, to);
        const high = Math.max(from, to);
        const order = plan.passes.map((_, place) => place);
        order.splice(to, 0, ...order.splice(from, 1));
        const changed = followed(copy(plan), (place) => order.indexOf(place));
        const between = plan.passes.map((_, place) => place).slice(Math.max(low, 1), high + 1);
        const stays = low === 0 || between.every((place) => kindOf(plan, place) === "switch");
        const names = stays ? ofThePlace(declared) : [];
        changed.passes = order.map((before, place) => copy({
            ...without(plan.passes[before], names), ...only(plan.passes[place], names)
        }));
        return changed;
    }

    /** The passes that a prompt with editing amounts to, in place of the first trajectory; what else its passes have stays. */
    function imported(plan, told) {
        const next = plan.passes.findIndex((_, index) => index > 0 && kindOf(plan, index) !== "switch");
        const first = plan.passes.slice(0, next < 0 ? undefined : next);
        const later = next < 0 ? [] : plan.passes.slice(next);
        const old = plan.switch_unit || "steps";
        const passes = told.passes.map((own, index) => ({
            ...without(copy(first[index] || {}), ["prompt_mode", "enabled", "switch_unit", "switch_at"]), ...own
        }));
        const kept = later.map((own) => (own.switch_at !== undefined && !own.switch_unit && told.switch_unit !== old ?
            {...own, switch_unit: old} : own));
        const more = passes.length - first.length;
        const changed = followed(copy(plan), (place) => {
            const now = place < first.length ? place : place + more;
            return place < first.length && place >= passes.length ? undefined : now;
        });
        return {...changed, switch_unit: told.switch_unit, passes: [...passes, ...copy(kept)]};
    }

    return {
        NEW_PLAN, add, allOn, copy, duplicate, fromTheStart, imported, inOwnPlaces, inherited, kindOf, label, mayHave, move, parse, remove,
        set, setField, setKind, shape, unitOf, unmoved,
    };
})();
