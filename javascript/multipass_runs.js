// Runs opened later, from a list or by one of their pictures, in the panel's accordion.
window.multipass = window.multipass || {};

multipass.runs = (function() {
    "use strict";

    function describe(run) {
        const {t} = multipass.dom;
        const pictures = `${run.images} ${t(run.images === 1 ? "picture" : "pictures")}`;
        const ended = run.status === "done" ? [] : [t(run.status)];
        return [run.when.replace("T", " "), run.passes.join(" → "), pictures, ...ended].join(" · ");
    }

    /**
     * A run in a window.
     *
     * @param image the place of the picture to begin with.
     * @param final how that picture became in the end, where that is at hand: a look.
     * @returns the window, a dialog.
     */
    async function open(run, image = 0, final = undefined) {
        const {t} = multipass.dom;
        const {title, note, images} = await multipass.compare.ask(run);
        await multipass.compare.ready();
        const pictures = images.flatMap((own, place) => {
            const label = `${t("Picture")} ${place + 1}, ${t("seed")} ${own.seed}`;
            const looks = final && place === image ? [...own.looks, final] : own.looks;
            const triptych = [{label: t("Triptych"), told: label, src: own.triptych}];
            return [{label, place, looks}, ...(own.triptych ? [{label: `${label}: ${t("triptych")}`, looks: triptych}] : [])];
        }).filter((picture) => picture.looks.length);
        if (!pictures.length) {
            throw new Error(note || "This run has made no picture");
        }
        const at = Math.max(0, pictures.findIndex((picture) => picture.place === image));
        return MultipassViewer.open({title, note, pictures, at});
    }

    async function openFile(file) {
        const {t} = multipass.dom;
        const found = multipass.compare.runIn(await file.arrayBuffer());
        if (!found) {
            throw new Error(`${file.name} ${t("does not say of which run it is")}`);
        }
        const src = URL.createObjectURL(file);
        const forget = () => URL.revokeObjectURL(src);
        try {
            const dialog = await open(found.run, found.image, {label: t("Final"), told: file.name, src});
            dialog.addEventListener("close", forget);
        } catch (error) {
            forget();
            throw error;
        }
    }

    function create(tab) {
        const {button, element} = multipass.dom;
        const id = (name) => `multipass_${tab}_runs_${name}`;
        const listed = element("select", {id: id("listed"), "aria-label": "Run"});
        const said = element("div", {role: "status", class: "multipass-error"});
        const act = (doing) => {
            said.textContent = "";
            doing.catch((error) => {
                said.textContent = error.message;
            });
        };
        const openIt = button(id("open"), "Open", "Compare the passes of this run", () => act(open(listed.value)));
        const picture = element("input", {
            id: id("file"), type: "file", accept: "image/*", hidden: true, onchange() {
                if (picture.files.length) {
                    act(openFile(picture.files[0]));
                    picture.value = "";
                }
            }
        });
        const openPicture = button(id("picture"), "Of a picture…", "Open the run that a picture is of; it can be dropped here too", () => picture.click());
        const drop = (event) => {
            event.preventDefault();
            if (event.dataTransfer.files.length) {
                act(openFile(event.dataTransfer.files[0]));
            }
        };

        async function list() {
            const {runs} = await multipass.server.send("GET", "runs");
            listed.replaceChildren(...runs.map((run) => element("option", {value: run.run}, describe(run))));
            openIt.disabled = !runs.length;
            said.textContent = runs.length ? "" : "There is no run yet";
        }

        const refresh = () => box.open && act(list());
        const box = element("details", {
            class: "multipass-more multipass-runs", ondragover: (event) => event.preventDefault(), ondrop: drop, ontoggle: refresh
        },
        element("summary", {}, "Runs"),
        element("div", {class: "multipass-row"}, listed, openIt, openPicture, picture),
        said);
        return {root: element("div", {class: "multipass-form"}, box), refresh};
    }

    const all = [];
    onUiLoaded(() => {
        for (const tab of ["txt2img", "img2img"]) {
            const own = create(tab);
            gradioApp().querySelector(`#multipass_${tab}_form`).after(own.root);
            all.push(own);
        }
    });

    return {refresh: () => all.forEach((own) => own.refresh())};
})();
