// A mask: a picture that is uploaded or drawn, white where a subject pass repaints. In the plan it is a PNG in base64.
window.multipass = window.multipass || {};

multipass.mask = function(panel) {
    "use strict";

    const {page} = multipass;
    const {button, element, show, t} = multipass.dom;
    const PREFIX = "data:image/png;base64,";
    const SHOWN = "rgb(230 40 40)"; // the brush, through which the picture is seen
    const OPACITY = 0.6;
    const MOST_UNDONE = 20; // strokes
    const MOST_KEPT = 256 * 1024 * 1024; // bytes of what was there before each

    function canvas(width, height, fill) {
        const own = element("canvas", {width, height});
        const context = own.getContext("2d");
        context.fillStyle = fill;
        context.fillRect(0, 0, width, height);
        return own;
    }

    async function loaded(source) {
        const image = new Image();
        image.src = source;
        await image.decode();
        return image;
    }

    const source = (mask) => (mask.startsWith("data:") ? mask : PREFIX + mask);

    /** A picture as a mask, black and white: what is nearer to white is repainted. As the server reads one: by its alpha
     * channel where that says something. Changes the canvas and returns it. */
    function binary(drawn) {
        const context = drawn.getContext("2d");
        const pixels = context.getImageData(0, 0, drawn.width, drawn.height);
        const {data} = pixels;
        const isOpaque = data.every((value, at) => at % 4 < 3 || value === 255);
        for (let at = 0; at < data.length; at += 4) {
            const light = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
            const isMasked = isOpaque ? light >= 128 : data[at + 3] > 128;
            data[at] = data[at + 1] = data[at + 2] = isMasked ? 255 : 0;
            data[at + 3] = 255;
        }
        context.putImageData(pixels, 0, 0);
        return drawn;
    }

    const encoded = (drawn) => binary(drawn).toDataURL("image/png").slice(PREFIX.length);

    /** The picture at an address, on a canvas of its size. */
    async function copied(address) {
        const image = await loaded(address);
        const drawn = canvas(image.naturalWidth, image.naturalHeight, "transparent");
        drawn.getContext("2d").drawImage(image, 0, 0);
        return drawn;
    }

    async function uploaded(file) {
        const address = URL.createObjectURL(file);
        try {
            return encoded(await copied(address));
        } catch {
            throw new Error(`${file.name}: ${t("not a picture")}`);
        } finally {
            URL.revokeObjectURL(address);
        }
    }

    /**
     * A canvas to paint a mask on, over a picture: {pad, mask, clear, undo}.
     *
     * @param brush an input that says how wide a stroke is, in hundredths of the longer side.
     * @param erase a checkbox: strokes take away.
     */
    function painting(size, background, before, brush, erase) {
        const mask = canvas(size.width, size.height, "black");
        const context = mask.getContext("2d");
        const pad = canvas(size.width, size.height, "gray");
        pad.setAttribute("aria-label", t("Paint over what is to be repainted"));

        function draw() {
            const own = pad.getContext("2d");
            own.globalCompositeOperation = "source-over";
            own.globalAlpha = 1;
            own.fillStyle = "gray";
            own.fillRect(0, 0, size.width, size.height);
            if (background) {
                own.drawImage(background, 0, 0);
            }
            // the picture is darkened where the mask is white, and the tint added: seen on any picture
            own.globalCompositeOperation = "multiply";
            own.drawImage(blended("white", "difference", OPACITY), 0, 0);
            own.globalCompositeOperation = "lighter";
            own.globalAlpha = OPACITY;
            own.drawImage(blended(SHOWN, "multiply", 1), 0, 0);
        }

        /** The mask, laid over a colour. */
        function blended(colour, operation, alpha) {
            const made = canvas(size.width, size.height, colour);
            const over = made.getContext("2d");
            over.globalCompositeOperation = operation;
            over.globalAlpha = alpha;
            over.drawImage(mask, 0, 0);
            return made;
        }

        const strokes = []; // the mask before each of the last ones
        function remember() {
            strokes.push(context.getImageData(0, 0, size.width, size.height));
            strokes.splice(0, strokes.length - Math.min(MOST_UNDONE, Math.max(1, Math.floor(MOST_KEPT / (4 * size.width * size.height)))));
        }

        function undo() {
            if (strokes.length) {
                context.putImageData(strokes.pop(), 0, 0);
                draw();
            }
        }

        let last;
        function stroke(event) {
            const box = pad.getBoundingClientRect();
            const scale = size.width / box.width;
            const here = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
            const width = Math.max(size.width, size.height) * brush.value / 100;
            context.strokeStyle = context.fillStyle = erase.checked ? "black" : "white";
            context.lineWidth = width;
            context.beginPath();
            context.arc(...here, width / 2, 0, 2 * Math.PI); // a line without length would leave nothing
            context.fill();
            context.beginPath();
            context.moveTo(...(last || here));
            context.lineTo(...here);
            context.stroke();
            last = here;
            draw();
        }

        function clear() {
            remember();
            context.fillStyle = "black";
            context.fillRect(0, 0, size.width, size.height);
            draw();
        }

        pad.addEventListener("pointerdown", (event) => {
            pad.setPointerCapture(event.pointerId);
            last = undefined;
            remember();
            stroke(event);
        });
        pad.addEventListener("pointermove", (event) => {
            if (pad.hasPointerCapture(event.pointerId)) {
                stroke(event);
            }
        });
        if (before) {
            context.drawImage(before, 0, 0, size.width, size.height);
        }
        draw();
        return {pad, mask, clear, undo};
    }

    /** Draw on the picture that the page shows, over the mask that there is. Resolves to the mask, or to undefined. */
    async function drawn(before) {
        const shown = page.shownPicture(panel.tab);
        const background = shown && await loaded(shown).catch(() => undefined);
        const size = background ? {width: background.naturalWidth, height: background.naturalHeight} : page.size(panel.tab);
        const begun = before && binary(await copied(source(before)));
        const brush = element("input", {id: panel.id("mask_brush"), type: "range", min: 1, max: 50, value: 10, "aria-label": "Size of the brush"});
        const erase = element("input", {id: panel.id("mask_erase"), type: "checkbox"});
        const {pad, mask, clear, undo} = painting(size, background, begun, brush, erase);
        return new Promise((resolve) => {
            let use;
            const dialog = element("dialog", {id: panel.id("mask_pad"), class: "multipass-mask-pad", "aria-label": "Mask"},
                pad,
                element("div", {class: "multipass-row"},
                    element("label", {for: brush.id}, "Brush"), brush,
                    erase, element("label", {for: erase.id}, "Erase"),
                    button(panel.id("mask_undo"), "Undo", "Take the last stroke back", undo),
                    button(panel.id("mask_clear"), "Clear", "Repaint nothing", clear),
                    button(panel.id("mask_use"), "Use", "Use this mask", () => {
                        use = encoded(mask);
                        dialog.close();
                    }),
                    button(panel.id("mask_cancel"), "Cancel", "Leave the mask as it was", () => dialog.close())));
            dialog.addEventListener("keydown", (event) => {
                event.stopPropagation(); // the plan behind stays as it is
                if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
                    event.preventDefault();
                    undo();
                }
            });
            dialog.addEventListener("close", () => {
                dialog.remove();
                resolve(use);
            });
            panel.root.append(dialog);
            dialog.showModal();
        });
    }

    /** The widget of a pass's mask; `edit` is called with a new one, or with undefined for none. */
    return function(id, index, edit) {
        const file = element("input", {type: "file", accept: "image/*", hidden: true, id: `${id}_file`});
        const picture = element("img", {class: "multipass-mask-picture", alt: t("Mask")});
        const act = async(make) => {
            try {
                const made = await make();
                if (made !== undefined) {
                    edit(made);
                }
            } catch (error) {
                panel.say(error.message);
            }
        };
        file.addEventListener("change", () => {
            const [chosen] = file.files;
            file.value = "";
            act(() => uploaded(chosen));
        });
        const draw = button(id, "Draw", "Paint over what is to be repainted", () => act(() => drawn(panel.plan().passes[index].mask)));
        const remove = button(`${id}_remove`, "Remove", "Look for a target instead", () => edit(undefined));
        return {
            node: element("span", {class: "multipass-row"}, picture, draw,
                button(`${id}_upload`, "Upload", "A picture, white where it is repainted", () => file.click()), remove, file),
            input: draw,
            show: (plan) => {
                const own = plan.passes[index].mask;
                picture.hidden = remove.hidden = !own;
                if (own) {
                    show(picture, "src", source(own));
                }
            },
        };
    };
};
