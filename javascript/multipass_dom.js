// Elements, and texts in the language of the page.
window.multipass = window.multipass || {};

multipass.dom = (function() {
    "use strict";

    /** A text in the language of the page; the host translates whole nodes by itself, this is for what is put together. */
    const t = (text) => (window.localization && getTranslation(text)) || text;

    const TEXTS = ["title", "placeholder", "aria-label"];

    /** An element. Attributes that begin with "on" are listeners; undefined and false ones are left out, texts translated. */
    function element(name, attributes = {}, ...children) {
        const node = document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) {
            if (key.startsWith("on")) {
                node.addEventListener(key.slice(2), value);
            } else if (value !== undefined && value !== false) {
                node.setAttribute(key, value === true ? "" : TEXTS.includes(key) ? t(value) : value);
            }
        }
        node.append(...children.filter((child) => child !== undefined && child !== null));
        return node;
    }

    /** A button with a sign on it; what it does is its title and its name for screen readers. */
    const tool = (id, sign, title, act) => element("button", {
        id, type: "button", class: "multipass-tool", title, "aria-label": title, onclick: act
    }, sign);

    const button = (id, text, title, act) => element("button", {
        id, type: "button", class: "multipass-button", title, onclick: act
    }, text);

    /** Set what an element shows, and leave alone what it shows already: the caret stays. */
    function show(node, property, value) {
        if (node[property] !== value) {
            node[property] = value;
        }
    }

    function bytes(count) {
        const units = ["B", "KB", "MB", "GB", "TB"];
        const power = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), units.length - 1);
        const value = count / 1024 ** power;
        return `${value.toFixed(power && value < 10 ? 1 : 0)} ${units[power]}`;
    }

    /** Steps as people count them; the range is half-open and counted from 0. */
    function range(first, end) {
        return end > first ? (end === first + 1 ? `${end}` : `${first + 1}-${end}`) : t("no step");
    }

    /** One colour a pass: hues as far from each other as they get. */
    const hue = (index) => `--multipass-hue: ${(250 + 137.5 * index) % 360}`;

    return {bytes, button, element, hue, range, show, t, tool};
})();
