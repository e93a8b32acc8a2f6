// Plans by name, and plans as files: choose, save, rename, delete, export, import, drop.
window.multipass = window.multipass || {};

multipass.presets = function(panel) {
    "use strict";

    const {plan: plans, server} = multipass;
    const {button, element, t, tool} = multipass.dom;
    const path = (name) => `presets/${encodeURIComponent(name)}`;
    let listed = [];
    // many file systems ignore case, and so does the webui here
    const isSame = (one, other) => one.toLowerCase() === other.toLowerCase();

    const rows = element("ul", {class: "multipass-preset-rows", "aria-label": "Presets"});
    const name = element("input", {
        id: panel.id("preset_name"), type: "text", placeholder: "Name", "aria-label": "Name of the preset", maxlength: 80,
        oninput: () => named(), onkeydown: (event) => event.key === "Enter" && save()
    });
    const saveButton = button(panel.id("preset_save"), "Save", "Save the plan as a preset", () => save());
    const chooser = element("input", {
        id: panel.id("import_file"), type: "file", accept: ".json,.png,.jpg,.jpeg,.webp", hidden: true,
        onchange: async() => {
            await take(chooser.files[0]);
            chooser.value = "";
        }
    });
    const root = element("div", {id: panel.id("presets"), class: "multipass-presets", hidden: true},
        rows,
        element("div", {class: "multipass-row"}, name, saveButton,
            button(panel.id("export"), "Export", "Download the plan as a JSON file", () => download()),
            button(panel.id("import"), "Import", "A plan, a preset, passes.json or a picture that has a plan", () => chooser.click()),
            chooser));

    /** Do it, and say what went wrong. */
    async function attempt(act) {
        try {
            await act();
        } catch (error) {
            panel.say(error.message);
        }
    }

    const named = () => {
        const there = listed.some((own) => isSame(own.name, name.value.trim()) && !own.shipped);
        saveButton.textContent = t(there ? "Replace" : "Save");
        saveButton.disabled = !name.value.trim();
    };

    const load = (own) => attempt(async() => {
        panel.replace(await server.send("GET", path(own.name)), `${t("Loaded:")} ${own.name}`);
        name.value = own.shipped ? "" : own.name;
        named();
    });

    const save = () => attempt(async() => {
        const wanted = name.value.trim();
        if (wanted) {
            await server.send("PUT", path(wanted), JSON.stringify(panel.plan()));
            panel.say(`${t("Saved:")} ${wanted}`);
            await list();
        }
    });

    const rename = (own) => attempt(async() => {
        const wanted = prompt(t("New name of the preset"), own.name)?.trim();
        if (!wanted || wanted === own.name) {
            return;
        }
        if (listed.some((other) => other !== own && isSame(other.name, wanted))) {
            throw new Error(`${t("There is already:")} ${wanted}`);
        }
        const plan = await server.send("GET", path(own.name));
        await server.send("PUT", path(wanted), JSON.stringify(plan));
        if (!isSame(wanted, own.name)) { // which is renamed by now
            await server.send("DELETE", path(own.name));
        }
        panel.say(`${t("Renamed:")} ${wanted}`);
        await list();
    });

    const discard = (own) => attempt(async() => {
        if (confirm(`${t("Delete the preset?")} ${own.name}`)) {
            await server.send("DELETE", path(own.name));
            panel.say(`${t("Deleted:")} ${own.name}`);
            await list();
        }
    });

    function row(own, index) {
        const id = (what) => panel.id(`preset_${index}_${what}`);
        return element("li", {"data-preset": own.name},
            button(id("load"), own.name, "Load this preset", () => load(own)),
            element("span", {class: "multipass-description"}, own.description || ""),
            own.shipped ? undefined : element("span", {class: "multipass-tools"},
                tool(id("rename"), "\u270e", "Rename this preset", () => rename(own)),
                tool(id("delete"), "\u00d7", "Delete this preset", () => discard(own))));
    }

    async function list() {
        listed = (await server.send("GET", "presets")).presets;
        rows.replaceChildren(...listed.map(row));
        named();
    }

    function download() {
        const text = JSON.stringify(panel.plan(), null, 2) + "\n";
        const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
        element("a", {href: url, download: `${name.value.trim() || "multipass"}.json`}).click();
        URL.revokeObjectURL(url);
    }

    /** The plan in a file. */
    const take = (file) => attempt(async() => {
        panel.replace((await server.send("POST", "import/file", file)).plan, `${t("Taken from:")} ${file.name}`);
    });

    /** Files dropped anywhere on the panel. */
    function acceptDrops(target) {
        const files = (event) => [...event.dataTransfer.types].includes("Files");
        target.addEventListener("dragover", (event) => {
            if (files(event)) {
                event.preventDefault();
                event.stopPropagation();
                event.dataTransfer.dropEffect = "copy";
                target.classList.add("multipass-drop");
            }
        });
        target.addEventListener("dragleave", () => target.classList.remove("multipass-drop"));
        target.addEventListener("drop", (event) => {
            target.classList.remove("multipass-drop");
            if (files(event)) {
                event.preventDefault();
                event.stopPropagation();
                take(event.dataTransfer.files[0]);
            }
        });
    }

    const toggle = tool(panel.id("presets_open"), "\u{1f4d6}", "Presets, export and import", () => {
        root.hidden = !root.hidden;
        toggle.setAttribute("aria-expanded", !root.hidden);
        if (!root.hidden) {
            attempt(list);
        }
    });
    toggle.setAttribute("aria-expanded", "false");
    toggle.setAttribute("aria-controls", root.id);

    return {acceptDrops, root, toggle};
};
