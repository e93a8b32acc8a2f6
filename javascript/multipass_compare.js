// The viewer on the pictures of the galleries. Which run a picture belongs to its own text says, in PNG, JPEG, WebP and AVIF
// alike: so it is right for a grid, for masks, for what a script has put together, and for a file from yesterday. With
// multipass off nothing is asked and nothing attached, until the page tells of a picture that is of a run.
window.multipass = window.multipass || {};

multipass.compare = (function() {
    "use strict";

    const TABS = ["txt2img", "img2img"];
    const MOST_KNOWN = 200; // a gallery's
    const known = new Map(); // by address of a picture: what `compared` found; undefined while it looks
    let loading; // of the viewer

    /** The run and the picture's place in it, from the bytes of a picture's file; null where it is of none. */
    function runIn(bytes) {
        // what is not PNG keeps the text in two bytes a letter
        const text = new TextDecoder("latin1").decode(bytes).replaceAll("\0", "");
        const found = [...text.matchAll(/Multipass run: ([0-9A-Za-z][\w.-]*)\/(\d+)/g)].pop();
        return found ? {run: found[1], image: Number(found[2])} : null;
    }

    const address = (src) => src && multipass.server.ADDRESS + src;

    /** What the webui tells of a run, as the viewer takes it: {title, note, images: [{seed, looks, triptych}]}. */
    async function ask(run) {
        const {t} = multipass.dom;
        const ended = {done: "", interrupted: "This run was stopped", failed: "This run failed"};
        const told = await multipass.server.send("GET", `runs/${run}/stages`);
        return {
            title: `${t("Run")} ${told.run}`,
            note: [t(ended[told.status]), told.error].filter(Boolean).join(": "),
            images: told.images.map((image) => ({
                seed: image.seed,
                looks: image.stages.map((stage) => ({...stage, label: t(stage.label), src: address(stage.src)})),
                triptych: address(image.triptych)
            }))
        };
    }

    /** The viewer is there, and on the galleries' pictures. Throws where it cannot be had. */
    function ready() {
        const {element} = multipass.dom;
        loading ||= new Promise((resolve, reject) => {
            const onerror = () => {
                loading = undefined;
                reject(new Error("the viewer could not be loaded"));
            };
            document.head.append(
                element("link", {rel: "stylesheet", href: address("viewer/viewer.css")}),
                element("script", {src: address("viewer/viewer.js"), onload: resolve, onerror})
            );
        }).then(() => {
            MultipassViewer.translate = multipass.dom.t;
            MultipassViewer.attach(document, looksOf);
        });
        return loading;
    }

    const looksOf = (img) => (TABS.some((tab) => large(tab) === img) && known.get(img.src)?.looks) || null;

    /** What there is to compare of a picture: {title, note, looks}; null where it is of no run. */
    async function compared(src) {
        const {t} = multipass.dom;
        const found = runIn(await (await fetch(src)).arrayBuffer());
        if (!found) {
            return null;
        }
        await ready();
        const final = {label: t("Final"), told: t("as it is shown"), src};
        let run;
        try {
            run = await ask(found.run);
        } catch (error) {
            return {title: found.run, note: error.message, looks: [final]};
        }
        const {title, note, images} = run;
        if (!images[found.image]) {
            return {title, note: `${t("The run has no picture")} ${found.image + 1}`, looks: [final]};
        }
        const {looks} = images[found.image];
        const last = looks[looks.length - 1];
        if (last?.src && await MultipassViewer.same(last, final)) { // nobody worked on it after the last pass
            looks.pop();
            Object.assign(final, {label: `${t("Final")} (${last.label})`, told: last.told});
        }
        return {title, note, looks: [...looks, final]};
    }

    const large = (tab) => gradioApp().querySelector(`#${tab}_gallery .preview img[data-testid="detailed-image"]`);

    /** The line under a gallery: what can be done with the picture that it shows. It is there from the first such on. */
    function draw(tab, told, src) {
        const {dom} = multipass;
        let line = gradioApp().querySelector(`#multipass_${tab}_compare`);
        if (!line && !told) {
            return;
        }
        if (!line) {
            line = dom.element("div", {id: `multipass_${tab}_compare`, class: "multipass-form multipass-compare"});
            gradioApp().querySelector(`#${tab}_gallery_container`).after(line);
        }
        line.dataset.of = told ? src : "";
        if (line.told === told) {
            return;
        }
        line.told = told;
        line.replaceChildren();
        if (told?.looks.length > 1) {
            const open = () => MultipassViewer.open({...told, pictures: [{label: "", looks: told.looks}]});
            line.append(
                dom.button(`multipass_${tab}_compare_open`, "Compare passes", "The passes' pictures, with a slider", open),
                dom.element("span", {}, "or press the picture, hold and drag upwards")
            );
        }
        if (told?.note) {
            line.append(dom.element("span", {role: "status"}, told.note));
        }
    }

    /** Whether the shown picture may be of a run: the text beside it tells, but may still be that of the one before. */
    function mayBeOfRun(tab) {
        const {find, isOn} = multipass.page;
        return isOn(tab) || find(`#html_info_${tab}`)?.textContent.includes("Multipass run:");
    }

    async function look(tab) {
        const src = large(tab)?.src;
        const drawShown = () => {
            const shown = large(tab)?.src; // which may have become another meanwhile
            draw(tab, known.get(shown), shown);
        };
        if (src && !known.has(src) && mayBeOfRun(tab)) {
            known.set(src, undefined);
            if (known.size > MOST_KNOWN) {
                known.delete(known.keys().next().value);
            }
            drawShown();
            try {
                known.set(src, await compared(src));
            } catch { // asked again when the page next changes
                known.delete(src);
            }
        }
        drawShown();
    }

    onUiLoaded(() => onAfterUiUpdate(() => TABS.forEach(look)));

    return {ask, ready, runIn};
})();
