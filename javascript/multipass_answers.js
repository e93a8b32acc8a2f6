// What the webui says of the plan as it stands, asked again when the plan or the fields that it inherits from have changed:
// whose steps, what is wrong, each pass's whole texts and their tokens.
window.multipass = window.multipass || {};

/**
 * @param text the plan, as its field has it.
 * @param tell who is told: {validated(answer, by the plan's own places), texts(answer, question), tokens(name, count), failed(message), fieldsChanged()}.
 *     Of a question that has changed meanwhile no answer is told; `fieldsChanged` where a pass
 *     inherits another field of the page than before.
 */
multipass.answers = function(panel, text, tell) {
    "use strict";

    const {page, plan: plans, server} = multipass;
    const TEXTS = ["prompt", "negative_prompt"];
    const CHOSEN_MS = 3000; // by then the webui has a checkpoint that was chosen at the top of the page
    const fields = () => page.current(panel.tab);
    let validated; // the newest answer
    let texts = []; // each pass's
    let failure = ""; // until there is an answer again
    let inherited; // the fields when they were last told of
    let stale = false; // whether files may have come or gone since the webui was asked

    /** What `validate` is asked of a plan, alone or with texts. */
    const body = (plan, given) => JSON.stringify({plan, ...page.request(panel.tab), ...given});

    /** What it is asked of the plan as it stands: with the prompt, where that adds passes. Chosen styles may change what it
     * adds, and are not in it: then without. */
    function wholeBody() {
        if (panel.plan().prompt_syntax !== "scene-break" || page.hasStyles(panel.tab)) {
            return body(text());
        }
        const {prompt, negative_prompt} = fields();
        return body(text(), {prompt, negative_prompt});
    }

    /** What `texts` is asked. */
    function question() {
        const {prompt, negative_prompt} = fields();
        return JSON.stringify({plan: text(), prompt, negative_prompt});
    }

    function fail({message}) {
        failure = message;
        tell.failed(message);
    }

    const askValidate = server.asking("validate", (answer, of) => {
        if (of !== wholeBody()) { // changed since; the next answer is on its way
            return;
        }
        validated = answer && plans.inOwnPlaces(answer);
        if (answer && failure) { // it is over
            fail({message: ""});
        }
        tell.validated(validated);
    }, fail);

    const askTexts = server.asking("texts", (answer, of) => {
        if (of !== question()) {
            return;
        }
        texts = (answer?.passes || []).filter((own) => own.index < plans.unmoved(panel.plan(), answer.plan));
        tell.texts(answer, of);
        countTokens();
    }, fail);

    const counts = {}; // by text: the newest answer, and the question
    const askTokens = Object.fromEntries(TEXTS.map((name) => [name, server.asking("tokens", (answer, of) => {
        counts[name] = {of, told: answer?.tokens?.[0]};
        tell.tokens(name, counts[name].told);
    }, fail)]));

    function countTokens() {
        const own = texts.find((found) => found.index === panel.chosen());
        const {steps} = fields();
        for (const name of TEXTS) {
            const negative = name === "negative_prompt" || undefined;
            const of = own && JSON.stringify({texts: [own[name]], steps, negative});
            if (!own || counts[name]?.of === of) { // which is not asked again, and the form may be another by now
                tell.tokens(name, own && counts[name].told);
            }
            if (own) {
                askTokens[name](of);
            }
        }
    }

    /** Next time ask although nothing of ours has changed. */
    function expire() {
        stale = true;
    }

    return {
        body, question,
        /** What is wrong, by its path. */
        errors: () => new Map((validated?.errors || []).map((own) => [own.path, own.message])),
        /** A pass's whole text, undefined where it is not known. */
        textOf: (index, name) => texts.find((own) => own.index === index)?.[name],
        expire,
        /** Ask what has changed. `anew`: also where nothing of ours has, for files came or went. */
        ask(anew) {
            const now = fields();
            const before = inherited;
            if (JSON.stringify(now) !== JSON.stringify(before)) {
                inherited = now;
                tell.fieldsChanged();
            }
            if (before?.checkpoint && before.checkpoint !== now.checkpoint) { // the page has it before the webui has
                setTimeout(expire, CHOSEN_MS);
            }
            askValidate(wholeBody(), {anew: anew || stale, beside: now.checkpoint});
            stale = false;
            askTexts(question());
            countTokens();
        },
    };
};
