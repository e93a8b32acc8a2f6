// A bar for each pass while a plan is rendered in the page, under the host's own for the whole. Without a plan nothing is
// asked.
(function() {
    "use strict";

    const EVERY_MS = 500;

    function row(own) {
        const {element} = multipass.dom;
        const doing = ["", "sampling"].includes(own.doing) ? `${own.done}/${own.steps}` : own.doing;
        return element("div", {class: own.doing && "multipass-now"},
            element("span", {}, own.name),
            element("progress", {max: own.steps, value: own.done, "aria-label": own.name}),
            element("span", {}, doing));
    }

    async function follow(hostBar) {
        const bars = multipass.dom.element("div", {class: "multipass-bars"});
        hostBar.after(bars);
        while (hostBar.isConnected) {
            const told = await multipass.server.send("GET", "progress").catch(() => ({passes: []}));
            bars.replaceChildren(...told.passes.map(row));
            await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
        }
        bars.remove();
        multipass.runs.refresh();
    }

    onAfterUiUpdate(() => {
        for (const tab of ["txt2img", "img2img"]) {
            const hostBar = gradioApp().querySelector(`#${tab}_results .progressDiv`);
            if (hostBar && multipass.page.rendersPlan(tab) && !hostBar.dataset.multipass) {
                hostBar.dataset.multipass = "followed";
                follow(hostBar);
            }
        }
    });
})();
