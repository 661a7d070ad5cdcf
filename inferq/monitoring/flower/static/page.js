/* What both pages do: ask for data again and again, and act. */
/* exported inferqPage */
/* global inferqTables, bootstrap */
var inferqPage = (function () {
    "use strict";

    var EVERY_MS = 2000,
        ui = inferqTables,
        page = document.getElementById("inferq-page"),
        dot = document.getElementById("inferq-dot"),
        status = document.getElementById("inferq-status"),
        error = document.getElementById("inferq-error"),
        asking = [];

    function cookie(name) {
        var found = document.cookie.match("(?:^|;)\\s*" + name + "\\s*=\\s*([^;]+)");
        return found ? decodeURIComponent(found[1]) : "";
    }

    function say(problem) {
        ui.setClass(dot, "status-dot " + (problem ? "status-dot-error" : "status-dot-live"));
        ui.setText(status, problem ? "Update failed" :
            "Updated " + new Date().toLocaleTimeString("en-GB"));
        ui.setText(error, problem);
        error.hidden = !problem;
    }

    /* The origin, for an address with a password in it is none that scripts may ask.
     * What an answer says, or throws an Error with a sentence for the user. */
    async function read(url, options) {
        var answer, said;
        try {
            answer = await fetch(location.origin + url, Object.assign({credentials: "same-origin"}, options));
        } catch (failure) {
            throw new Error("Flower does not answer.");
        }
        if (answer.redirected || answer.status === 401) {
            throw new Error("You are not logged in any more: load the page again.");
        }
        said = await answer.text();
        try {
            said = JSON.parse(said);
        } catch (failure) {
            throw new Error(said.slice(0, 300) || "Flower answers with status " + answer.status + ".");
        }
        if (!answer.ok) {
            throw new Error(said.message || said.error);
        }
        return said;
    }

    /*
     * Give what url() says to use(), now and every other second while the page is seen.
     * use may return for how many milliseconds the next question can wait.
     */
    function keepAsking(url, use) {
        var timer = null;
        async function ask() {
            var wait = EVERY_MS;
            clearTimeout(timer);
            timer = null;
            if (!document.hidden) {
                try {
                    var said = await read(url());
                    if (said.error) {
                        throw new Error(said.error);
                    }
                    wait = use(said) || EVERY_MS;
                    say("");
                } catch (failure) {
                    say(failure.message);
                }
            }
            if (page.dataset.refreshes === "1") {
                clearTimeout(timer);
                timer = setTimeout(ask, wait);
            }
        }
        asking.push(ask);
        ask();
    }

    function askNow() {
        asking.forEach(function (ask) {
            ask();
        });
    }

    function toast(message, failed) {
        var box = ui.node("div", "toast align-items-center border-0 text-bg-" +
                (failed ? "danger" : "success")),
            line = ui.node("div", "d-flex"),
            close = ui.node("button", "btn-close btn-close-white me-2 m-auto");
        box.setAttribute("role", failed ? "alert" : "status");
        close.type = "button";
        close.setAttribute("data-bs-dismiss", "toast");
        close.setAttribute("aria-label", "Close");
        line.append(ui.node("div", "toast-body", message), close);
        box.appendChild(line);
        document.getElementById("toast-container").appendChild(box);
        box.addEventListener("hidden.bs.toast", function () {
            box.remove();
        });
        bootstrap.Toast.getOrCreateInstance(box, {delay: failed ? 10000 : 5000}).show();
    }

    async function act(name, body, button) {
        button.disabled = true;
        try {
            var said = await read(page.dataset[name], {
                method: "POST",
                headers: {"Content-Type": "application/json", "X-XSRFToken": cookie("_xsrf")},
                body: JSON.stringify(body)
            });
            toast(said.message, false);
        } catch (failure) {
            toast(failure.message, true);
        }
        button.disabled = false;
        askNow();
    }

    /* A button that acts, or that says why its user may not. question: asked before. */
    function button(label, className, name, body, question) {
        var made = ui.node("button", "btn btn-sm " + className, label);
        made.type = "button";
        arm(made, name, body, question);
        return made;
    }

    function arm(made, name, body, question) {
        if (page.dataset.refusal) {
            made.disabled = true;
            made.title = page.dataset.refusal;
            return;
        }
        made.addEventListener("click", function () {
            if (!question || window.confirm(question)) {
                act(name, body, made);
            }
        });
    }

    document.addEventListener("visibilitychange", function () {
        if (!document.hidden) {
            askNow();
        }
    });

    return {arm: arm, button: button, data: page.dataset, keepAsking: keepAsking, read: read};
}());
