// What the webui is asked under /multipass/v1/.
window.multipass = window.multipass || {};

multipass.server = (function() {
    "use strict";

    const ADDRESS = "./multipass/v1/";
    const AGAIN_MS = 10000; // where there was no answer

    /** What is told, which may be what is wrong with the question. Throws, for people, where the webui does not say. */
    async function tell(method, path, body) {
        const answer = await fetch(ADDRESS + path, {method, body});
        const told = await answer.json().catch(() => undefined);
        if (told && (answer.ok || Array.isArray(told.errors))) {
            return told;
        }
        // FastAPI and the webui's own API have other forms
        const why = [told?.detail, told?.errors].find((own) => own && typeof own === "string");
        const isRefusal = why && answer.status < 500; // which says for itself what is meant
        throw new Error(isRefusal ? why : `Multipass, ${path}: ${why || `HTTP ${answer.status}`}`);
    }

    /** The answer to one question. Throws with a message for people. */
    async function send(method, path, body) {
        const told = await tell(method, path, body);
        if (told.errors) {
            throw new Error(told.errors.map((error) => (error.path ? `${error.path}: ` : "") + error.message).join("; "));
        }
        return told;
    }

    /**
     * A question that is asked again whenever its body changes: one at a time (the webui may be busy with a picture),
     * and only the newest answer counts. Returns a function that takes the body.
     *
     * With `anew` it is asked again although nothing has changed. `beside` is what the answer depends on besides.
     *
     * @param take called with the answer, or with undefined where there was none, and the body that was asked.
     * @param fail called with what went wrong where there was none. It is asked again later.
     */
    function asking(path, take, fail) {
        let question;
        let wanted; // the question, and what is beside it
        let asked;
        let busy = false;
        return async function(body, {anew = false, beside = ""} = {}) {
            wanted = `${body}\n${beside}`;
            question = body;
            if (anew) {
                asked = undefined;
            }
            if (busy) {
                return;
            }
            busy = true;
            try {
                while (wanted !== asked) {
                    const about = question;
                    const key = asked = wanted;
                    let told;
                    try {
                        told = await tell("POST", path, about);
                    } catch (error) {
                        setTimeout(() => (asked = asked === key ? undefined : asked), AGAIN_MS);
                        fail(error);
                    }
                    if (wanted === asked) {
                        take(told, about);
                    }
                }
            } finally {
                busy = false;
            }
        };
    }

    return {ADDRESS, asking, send};
})();
