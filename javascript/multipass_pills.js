// The passes as a row of tabs: choose one, drag it to another place, add one.
window.multipass = window.multipass || {};

multipass.pills = function(panel) {
    "use strict";

    const {plan: plans} = multipass;
    const {element, hue, show, t, tool} = multipass.dom;
    const DRAGGED_PX = 6;
    const list = element("div", {
        class: "multipass-pills", role: "tablist", "aria-label": "Passes"
    });
    const more = tool(panel.id("add"), "+", "Add a pass, a copy of this one", () => panel.add());
    const root = element("div", {class: "multipass-row"}, list, more);
    let suppressed = false; // the click that ends a drag

    /** The place among the pills over which the pointer is. */
    function placeUnder(event) {
        const under = document.elementsFromPoint(event.clientX, event.clientY).find((own) => own.matches(".multipass-pill"));
        return under && under.parentElement === list ? [...list.children].indexOf(under) : -1;
    }

    function pill(index) {
        let from;
        const end = () => {
            from = undefined;
            node.classList.remove("multipass-dragged");
        };
        const node = element("button", {
            id: panel.id(`pill_${index}`), type: "button", class: "multipass-pill", role: "tab",
            "aria-controls": panel.id("pass"),
            title: "Drag, or press Alt with an arrow key, to move the pass; F2 renames it, Delete removes it",
            onclick: () => {
                if (!suppressed) {
                    panel.choose(index);
                }
                suppressed = false;
            },
            ondblclick: () => panel.rename(index),
            onpointerdown: (event) => {
                suppressed = false;
                from = event;
                node.setPointerCapture(event.pointerId); // or a quick hand is over the next one before we know
            },
            onpointermove: (event) => {
                if (from && Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > DRAGGED_PX) {
                    node.classList.add("multipass-dragged");
                    const to = placeUnder(event);
                    for (const [place, other] of [...list.children].entries()) {
                        other.classList.toggle("multipass-drop-place", place === to && place !== index);
                    }
                }
            },
            onpointerup: (event) => {
                const to = node.classList.contains("multipass-dragged") ? placeUnder(event) : -1;
                suppressed = node.classList.contains("multipass-dragged");
                end();
                list.querySelectorAll(".multipass-drop-place").forEach((own) => own.classList.remove("multipass-drop-place"));
                if (to >= 0) {
                    panel.move(index, to);
                }
            },
            onpointercancel: end,
            onkeydown: (event) => pressed(event, index),
        }, element("span", {class: "multipass-dot"}), element("span", {class: "multipass-name"}), element("span", {class: "multipass-range"}));
        node.style.cssText = hue(index);
        return node;
    }

    function pressed(event, index) {
        const last = list.children.length - 1;
        const to = {ArrowLeft: index - 1, ArrowUp: index - 1, ArrowRight: index + 1, ArrowDown: index + 1, Home: 0, End: last}[event.key];
        if (to !== undefined) {
            const place = Math.min(Math.max(to, 0), last);
            event.altKey ? panel.move(index, place) : panel.choose(place);
            list.children[place].focus();
        } else if (event.key === "Delete") {
            panel.remove(index);
            list.children[panel.chosen()].focus();
        } else if (event.key === "F2") {
            panel.rename(index);
        } else {
            return;
        }
        event.preventDefault();
    }

    function draw(rangeOf, wrong) {
        const plan = panel.plan();
        while (list.children.length > plan.passes.length) {
            list.lastChild.remove();
        }
        while (list.children.length < plan.passes.length) {
            list.append(pill(list.children.length));
        }
        plan.passes.forEach((own, index) => {
            const node = list.children[index];
            const chosen = index === panel.chosen();
            const kind = plans.kindOf(plan, index);
            node.classList.toggle("multipass-off", own.enabled === false);
            node.classList.toggle("multipass-wrong", wrong.has(index));
            node.setAttribute("aria-selected", chosen);
            node.tabIndex = chosen ? 0 : -1;
            show(node.children[1], "textContent", plans.label(plan, index));
            const told = own.enabled === false ? t("off") : rangeOf(index) || "";
            show(node.children[2], "textContent", [kind === "first" ? "" : t(kind), told].filter(Boolean).join(" \u00b7 "));
        });
        more.disabled = panel.isFull(plan);
    }

    return {draw, root};
};
