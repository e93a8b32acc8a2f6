// What the webui's own fields say, and nothing else of its page.
window.multipass = window.multipass || {};

multipass.page = (function() {
    "use strict";

    /** What its own texts are called beside a plan's, by their paths. */
    const TEXTS = {prompt: "The webui's prompt", negative_prompt: "The webui's negative prompt"};
    const find = (selector) => gradioApp().querySelector(selector);

    /** What a component shows, by its id: a text, the chosen one of a list or of radio buttons, a number as text. */
    function value(id) {
        const component = find(`#${id}`);
        if (component?.querySelector("input[type=radio]")) {
            return component.querySelector("input[type=radio]:checked")?.value;
        }
        const input = component?.querySelector("textarea, input[type=number], input:not([type])") || component?.querySelector("input");
        return input?.value;
    }

    function number(id) {
        const given = value(id);
        return given === undefined || given === "" ? undefined : Number(given);
    }

    /** Forge has fields of its own at the top, without ids, and `opts` stays as it was when the page was loaded. */
    const atTheTop = (selector) => find(`#quicksettings ${selector}`)?.value;

    const checkbox = (id) => find(`#${id} input[type=checkbox]`);
    const checked = (id) => Boolean(checkbox(id)?.checked);
    const hires = (tab) => tab === "txt2img" && checked("txt2img_hr-checkbox");

    /** The request as it stands, by the names that a plan's fields have. */
    function current(tab) {
        return {
            checkpoint: value("setting_sd_model_checkpoint") || atTheTop(".model_selection input") ||
                opts.sd_model_checkpoint || undefined,
            prompt: value(`${tab}_prompt`) ?? "",
            negative_prompt: value(`${tab}_neg_prompt`) ?? "",
            sampler_name: value(`${tab}_sampling`) || undefined,
            scheduler: value(`${tab}_scheduler`) || undefined,
            steps: number(`${tab}_steps`),
            cfg_scale: number(`${tab}_cfg_scale`),
            // the options come some time after the page
            clip_skip: Number(atTheTop("input[type=number][aria-label$='Clip skip']") || opts.CLIP_stop_at_last_layers) || undefined,
            denoising_strength: tab === "img2img" || hires(tab) ? number(`${tab}_denoising_strength`) : undefined,
        };
    }

    /** What decides the steps, as `validate` wants it. */
    function request(tab) {
        const own = current(tab);
        const refiner = checked(`${tab}_enable-checkbox`) ? value(`${tab}_checkpoint`) : undefined;
        return {
            steps: own.steps,
            sampler_name: own.sampler_name,
            scheduler: own.scheduler,
            denoising_strength: own.denoising_strength,
            width: number(`${tab}_width`),
            height: number(`${tab}_height`),
            img2img: tab === "img2img",
            enable_hr: hires(tab),
            refiner_checkpoint: refiner && refiner !== "None" ? refiner : undefined,
        };
    }

    const isOn = (tab) => checked(`multipass_${tab}-checkbox`);

    /** Whether what is rendered in a tab has a plan: where multipass is on, and where one of its axes turns it on. */
    function rendersPlan(tab) {
        const axes = [...gradioApp().querySelectorAll(`#${tab}_script_container [id*=xyz_plot] input`)];
        return isOn(tab) || axes.some((own) => own.offsetParent && own.value.startsWith("[Multipass]"));
    }

    /** Call it whenever multipass is turned on or off in a tab. */
    const whenTurned = (tab, act) => checkbox(`multipass_${tab}-checkbox`)?.addEventListener("input", act);

    /** Open the accordion of a tab, which turns multipass on there. */
    function turnOn(tab) {
        if (!isOn(tab)) {
            find(`#multipass_${tab}`).onChecked(true);
        }
    }

    const hasStyles = (tab) => Boolean(find(`#${tab}_styles .token`));

    /** Call it whenever a picture is done, of either tab: the button that interrupts it comes and goes. */
    function whenDone(act) {
        for (const tab of ["txt2img", "img2img"]) {
            const button = find(`#${tab}_interrupt`);
            let running = false;
            new MutationObserver(() => {
                const before = running;
                running = button.style.display === "block";
                if (before && !running) {
                    act();
                }
            }).observe(button, {attributes: true, attributeFilter: ["style"]});
        }
    }

    // where img2img's own tabs have their picture
    const INITS = ["img2img_image", "img2img_sketch", "img2maskimg", "inpaint_sketch", "img_inpaint_base"];
    const isSeen = (component) => component?.getClientRects().length > 0;

    /** How many of the gallery's pictures, the first ones, are grids. */
    function grids(tab) {
        try {
            return JSON.parse(value(`generation_info_${tab}`)).index_of_first_image || 0;
        } catch { // nothing has been made
            return 0;
        }
    }

    /** The address of the picture that the page shows: what img2img begins with, else of the gallery's the chosen one, or
     * the first, that is no grid and has the shape of what is to be made. */
    function shownPicture(tab) {
        // the picture itself may be hidden behind a canvas that shows it
        const open = tab === "img2img" ? INITS.map((id) => find(`#${id}`)).find(isSeen) : undefined;
        const {width, height} = size(tab);
        const isAlike = (own) => own.naturalHeight && Math.abs(own.naturalWidth * height / own.naturalHeight - width) < 8;
        const all = [...gradioApp().querySelectorAll(`#${tab}_gallery .grid-wrap img`)];
        const grid = all.slice(0, grids(tab)).map((own) => own.src);
        const gallery = [...gradioApp().querySelectorAll(`#${tab}_gallery .preview img`), ...all];
        return (open?.querySelector("img[src]:not([src=''])") || gallery.find((own) => isAlike(own) && !grid.includes(own.src)))?.src;
    }

    /** In pixels, of the picture that is to be made, or of its shape. */
    function size(tab) {
        const [width, height] = [number("txt2img_hr_resize_x"), number("txt2img_hr_resize_y")];
        return hires(tab) && width && height ? {width, height} :
            {width: number(`${tab}_width`) || 512, height: number(`${tab}_height`) || 512};
    }

    const hasAdetailer = (tab) => Boolean(find(`#script_${tab}_adetailer_ad_main_accordion`));

    return {TEXTS, current, find, hasAdetailer, hasStyles, isOn, rendersPlan, request, shownPicture, size, turnOn, whenDone, whenTurned};
})();
