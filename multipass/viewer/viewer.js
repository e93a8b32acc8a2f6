// Compares the looks of a picture: what it began with, each pass, the finished one. Press it, hold and drag upwards to go
// through them, let go and it is the finished one again; or a slider between any two. The same file serves the webui's
// page and the reports, so it knows of neither.
//
// A look is {label, told, src}: a badge's words, a line on how it was made, and where the picture is (null: there is
// none, and `told` says why). In a list of looks the last is what the picture is at rest.
//
// What is its own to say goes through `MultipassViewer.translate`, which a page may set: from a text to that text.
(function () {
    "use strict";

    const STEP = 44; // CSS pixels of a drag from one look to the next
    const MOVED = 5; // fewer are a click
    const HOLD = 200; // milliseconds after which a finger that rests drags; one that moves before scrolls
    const MOST_LOADED = 64; // three pictures of the longest plan
    const loaded = new Map(); // by address: a promise of the picture, or of null where it cannot be had; last used last

    const t = (text) => window.MultipassViewer.translate(text);

    function element(name, attributes, ...children) {
        const node = document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) {
            node.setAttribute(key, value);
        }
        node.append(...children);
        return node;
    }

    function load(src) {
        const found = loaded.get(src) || new Promise((resolve) => {
            const picture = new Image();
            picture.onload = () => resolve(picture);
            picture.onerror = () => {
                loaded.delete(src); // it may be back the next time
                resolve(null);
            };
            picture.src = src;
        });
        loaded.delete(src);
        loaded.set(src, found);
        if (loaded.size > MOST_LOADED) {
            loaded.delete(loaded.keys().next().value);
        }
        return found;
    }

    const preload = (looks) => looks.filter((look) => look.src).forEach((look) => load(look.src));

    // Whether two looks are the same to the pixel.
    async function same(one, other) {
        const [a, b] = await Promise.all([load(one.src), load(other.src)]);
        if (!a || !b || a.naturalWidth !== b.naturalWidth || a.naturalHeight !== b.naturalHeight) {
            return false;
        }
        const [left, right] = [a, b].map((picture) => {
            const canvas = element("canvas", {width: picture.naturalWidth, height: picture.naturalHeight});
            const context = canvas.getContext("2d", {willReadFrequently: true});
            context.drawImage(picture, 0, 0);
            return context.getImageData(0, 0, canvas.width, canvas.height).data;
        });
        return left.every((value, place) => value === right[place]);
    }

    // --- one look in a frame -----------------------------------------------------------------------------------------

    // A frame that shows one look, its badge, or in plain words why there is no picture.
    function makeFrame() {
        const picture = element("img", {alt: "", draggable: "false"});
        const missing = element("p", {class: "multipass-missing"});
        const badge = element("output", {class: "multipass-badge"});
        const dots = element("span", {class: "multipass-dots", "aria-hidden": "true"});
        const node = element("div", {class: "multipass-frame"}, picture, missing, element("div", {class: "multipass-tag"}, badge, dots));
        let shown = null;

        async function show(looks, index) {
            const look = shown = looks[index];
            badge.textContent = look.label;
            dots.replaceChildren(...looks.map((_, place) => element("i", place === index ? {class: "multipass-here"} : {})));
            const found = look.src ? await load(look.src) : null;
            if (shown !== look) { // meanwhile another
                return;
            }
            node.classList.toggle("multipass-none", !found);
            missing.textContent = found ? "" : look.src ? `${look.label}: ${t("its picture was moved or deleted")}` : look.told;
            picture.alt = found ? look.label : "";
            if (found) {
                picture.src = found.src;
            } else {
                picture.removeAttribute("src");
            }
        }

        return {node, picture, show};
    }

    // --- the gesture -------------------------------------------------------------------------------------------------

    // Within `root`: press a picture, hold, drag up or down, let go.
    //   looksFor(target): the looks of what was pressed; null or fewer than two: the press is none of ours
    //   show(target, looks, index), end(target, looks): while it is dragged, and when that is over
    //   scrolls: whether a finger that moves at once scrolls; then it has to rest first
    // A click is the page's own, and so is a drag to the side.
    function gesture(root, {looksFor, show, end, scrolls}) {
        let press = null;

        function begin() {
            press.active = true;
            clearTimeout(press.timer);
            move();
        }

        function move() {
            const {target, looks, dy} = press;
            const steps = Math.round(-dy / STEP);
            const rest = looks.length - 1;
            const index = (((rest + steps) % looks.length) + looks.length) % looks.length;
            if (index !== press.index) {
                press.index = index;
                show(target, looks, index);
            }
        }

        function over() {
            const {active, target, looks, timer} = press;
            clearTimeout(timer);
            press = null;
            if (active) {
                end(target, looks);
            }
            return active;
        }

        root.addEventListener("pointerdown", (event) => {
            const looks = event.isPrimary && event.button === 0 ? looksFor(event.target) : null;
            if (!looks || looks.length < 2) {
                return;
            }
            preload(looks);
            const finger = scrolls && event.pointerType !== "mouse";
            press = {target: event.target, looks, finger, id: event.pointerId, x: event.clientX, y: event.clientY, dx: 0, dy: 0};
            if (finger) {
                press.timer = setTimeout(begin, HOLD);
            }
        }, true);

        window.addEventListener("pointermove", (event) => {
            if (!press || event.pointerId !== press.id) {
                return;
            }
            press.dx = event.clientX - press.x;
            press.dy = event.clientY - press.y;
            const across = Math.abs(press.dx);
            const down = Math.abs(press.dy);
            if (press.active) {
                move();
            } else if (Math.max(across, down) > MOVED) {
                if (press.finger || across > down) {
                    over();
                } else {
                    begin();
                }
            }
        }, true);

        window.addEventListener("pointerup", (event) => {
            if (press && event.pointerId === press.id && over()) {
                // the click that follows a drag is no click
                const swallow = (click) => {
                    click.preventDefault();
                    click.stopImmediatePropagation();
                };
                window.addEventListener("click", swallow, {capture: true, once: true});
                setTimeout(() => window.removeEventListener("click", swallow, true));
            }
        }, true);

        const cancel = () => press && over();
        window.addEventListener("pointercancel", cancel, true);
        window.addEventListener("blur", cancel);
        window.addEventListener("keydown", (event) => {
            if (press?.active && event.key === "Escape") {
                event.preventDefault();
                event.stopImmediatePropagation();
                over();
            }
        }, true);

        // a browser's own drag of a picture, to the side, is left to it
        root.addEventListener("dragstart", (event) => {
            if (!press) {
                return;
            }
            if (press.active || Math.abs(press.dy) > Math.abs(press.dx)) {
                event.preventDefault();
            } else {
                over();
            }
        }, true);
        root.addEventListener("contextmenu", (event) => press?.active && event.preventDefault(), true);
        window.addEventListener("touchmove", (event) => press?.active && event.preventDefault(), {passive: false});
    }

    // Where the picture itself is within its element, which may leave room around it.
    function placeOf(img) {
        const box = img.getBoundingClientRect();
        const fit = getComputedStyle(img).objectFit;
        const across = box.width / img.naturalWidth;
        const down = box.height / img.naturalHeight;
        const scales = {contain: Math.min(across, down), cover: Math.max(across, down), none: 1, "scale-down": Math.min(1, across, down)};
        const scale = scales[fit];
        const width = scale === undefined ? box.width : Math.min(box.width, img.naturalWidth * scale);
        const height = scale === undefined ? box.height : Math.min(box.height, img.naturalHeight * scale);
        return {left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height};
    }

    // The gesture on pictures of a page, whose looks are shown over them. `looksFor(img)` as in `gesture`.
    function attach(root, looksFor) {
        const frame = makeFrame();
        frame.node.classList.add("multipass-over");
        gesture(root, {
            looksFor: (target) => (target instanceof HTMLImageElement ? looksFor(target) : null),
            show(img, looks, index) {
                for (const [name, value] of Object.entries(placeOf(img))) {
                    frame.node.style[name] = `${value}px`;
                }
                document.body.append(frame.node);
                frame.show(looks, index);
            },
            end: () => frame.node.remove(),
            scrolls: true,
        });
    }

    // --- the window --------------------------------------------------------------------------------------------------

    function choice(looks, chosen, label, changed) {
        const select = element("select", {"aria-label": label});
        looks.forEach((look, index) => {
            const option = element("option", {value: index}, look.label);
            option.disabled = !look.src;
            select.append(option);
        });
        select.value = chosen;
        select.addEventListener("change", () => changed(Number(select.value)));
        return select;
    }

    // A window over the page with one picture at a time.
    //   title, note: what it is; what there is to say of it (a run that was interrupted)
    //   pictures: [{label, looks}], at least one, each with at least one look; `at`: the one to begin with
    // Returns the dialog, which removes itself when it is closed.
    function open({title, note = "", pictures, at = 0, slider = false}) {
        const frame = makeFrame();
        const other = element("img", {class: "multipass-other", alt: "", draggable: "false"});
        const divider = element("input", {type: "range", min: 0, max: 100, step: 0.5, value: 50, class: "multipass-divider", "aria-label": t("Divider between the two pictures")});
        const right = element("span", {class: "multipass-tag multipass-right"});
        frame.node.append(other, right, element("span", {class: "multipass-line"}), divider);
        const stage = element("div", {class: "multipass-stage"}, frame.node);
        const told = element("p", {class: "multipass-caption", role: "status"});
        const buttons = element("div", {class: "multipass-looks", role: "group", "aria-label": t("Looks")});
        const between = element("div", {class: "multipass-between"});
        const sliding = element("button", {type: "button", title: "S"}, t("Slider"));
        const close = element("button", {type: "button", "aria-label": t("Close"), title: t("Escape")}, "✕");
        const keys = element("p", {class: "multipass-keys"});
        const chosen = element("select", {"aria-label": t("Picture"), title: t("Page up, page down")});
        pictures.forEach((picture, place) => chosen.append(element("option", {value: place}, picture.label)));
        chosen.hidden = pictures.length < 2;
        const dialog = element(
            "dialog",
            {class: "multipass-viewer", "aria-label": title, tabindex: -1},
            element("header", {}, element("strong", {}, title), chosen, sliding, close),
            ...(note ? [element("p", {class: "multipass-note"}, note)] : []),
            stage,
            told,
            buttons,
            between,
            keys,
        );
        let looks, index, pair;

        async function measure() { // the frame is as large as the picture at rest allows
            const own = looks;
            const rest = await Promise.all(own.filter((look) => look.src).map((look) => load(look.src)));
            const picture = rest.filter(Boolean).pop();
            if (own === looks) {
                frame.node.style.setProperty("--ratio", picture ? picture.naturalWidth / picture.naturalHeight : 1);
            }
        }

        function show(place) {
            index = place;
            frame.show(looks, index);
            told.textContent = `${looks[index].label}: ${looks[index].told}`;
            [...buttons.children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === index)));
            const {left, width} = buttons.children[index].getBoundingClientRect(); // where they do not fit, the row scrolls
            buttons.scrollLeft += left + width / 2 - buttons.getBoundingClientRect().left - buttons.clientWidth / 2;
        }

        function slide(on) {
            dialog.classList.toggle("multipass-sliding", on);
            sliding.setAttribute("aria-pressed", String(on));
            keys.textContent = on ? t("Drag the divider · arrow keys · S: all passes · Escape: back") :
                t("Press the picture and drag upwards · arrow keys, Home, End · S: slider · Escape: back");
            between.replaceChildren();
            if (!on) {
                show(index);
                dialog.focus();
                return;
            }
            const redraw = () => {
                frame.show([looks[pair[0]]], 0);
                other.src = looks[pair[1]].src;
                right.textContent = other.alt = looks[pair[1]].label;
                told.textContent = `${looks[pair[0]].label} | ${looks[pair[1]].label}`;
            };
            between.append(
                choice(looks, pair[0], t("Left of the divider"), (at) => { pair[0] = at; redraw(); }),
                choice(looks, pair[1], t("Right of the divider"), (at) => { pair[1] = at; redraw(); }),
            );
            redraw();
            [...buttons.children].forEach((button) => button.setAttribute("aria-pressed", "false"));
            divider.focus();
        }

        function put(place) {
            at = (place + pictures.length) % pictures.length;
            chosen.value = at;
            looks = pictures[at].looks;
            preload(looks);
            const there = looks.flatMap((look, number) => (look.src ? [number] : []));
            pair = there.length > 1 ? [there[0], there[there.length - 1]] : null;
            sliding.disabled = !pair;
            buttons.replaceChildren(...looks.map((look, number) => {
                const button = element("button", {type: "button", title: look.told}, look.label);
                button.classList.toggle("multipass-lost", !look.src);
                button.addEventListener("click", () => {
                    slide(false);
                    show(number);
                });
                return button;
            }));
            index = looks.length - 1;
            slide(Boolean(pair) && dialog.classList.contains("multipass-sliding"));
            measure();
        }

        const isSliding = () => dialog.classList.contains("multipass-sliding");
        const divide = () => frame.node.style.setProperty("--divider", `${divider.value}%`);
        divider.addEventListener("input", divide);
        sliding.addEventListener("click", () => slide(!isSliding()));
        close.addEventListener("click", () => dialog.close());
        chosen.addEventListener("change", () => put(Number(chosen.value)));
        dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
        dialog.addEventListener("close", () => dialog.remove());
        dialog.addEventListener("cancel", (event) => {
            if (isSliding()) {
                event.preventDefault();
                slide(false);
            }
        });
        dialog.addEventListener("keydown", (event) => {
            event.stopPropagation(); // the page has keys of its own
            const moves = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1};
            const turns = {PageDown: 1, PageUp: -1};
            if (event.target instanceof HTMLSelectElement || event.ctrlKey || event.altKey || event.metaKey) {
                return;
            }
            if (event.key in turns) {
                put(at + turns[event.key]);
            } else if (event.key.toLowerCase() === "s" && pair) {
                slide(!isSliding());
            } else if (isSliding()) {
                if (event.target !== divider && event.key in moves) {
                    divider.focus();
                }
                return; // the divider's own keys
            } else if (event.key in moves) {
                show((index + moves[event.key] + looks.length) % looks.length);
            } else if (event.key === "Home" || event.key === "End") {
                show(event.key === "Home" ? 0 : looks.length - 1);
            } else {
                return;
            }
            event.preventDefault();
        });
        gesture(stage, {
            looksFor: () => (isSliding() ? null : looks),
            show: (_, own, place) => show(place),
            end: (_, own) => show(own.length - 1),
            scrolls: false,
        });

        document.body.append(dialog);
        put(at);
        divide();
        dialog.showModal();
        slide(slider && Boolean(pair));
        return dialog;
    }

    window.MultipassViewer = {attach, element, open, same, translate: (text) => text};
})();
