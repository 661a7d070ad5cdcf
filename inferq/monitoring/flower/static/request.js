/* The Request page. */
/* global inferqTables, inferqPage */
(function () {
    "use strict";

    var SELDOM_MS = 10000,
        ui = inferqTables, page = inferqPage, id = page.data.id,
        ENDS = {
            stop: "text-bg-success", length: "text-bg-success", error: "text-bg-danger",
            cancelled: "text-bg-warning", expired: "text-bg-warning", running: "text-bg-primary",
            queued: "text-bg-info"
        };

    function badge(element, word) {
        ui.setText(element, word);
        ui.setClass(element, "badge " + (ENDS[word] || "text-bg-secondary"));
    }

    function text(get) {
        return function (cell, row) {
            ui.setText(cell, get(row));
        };
    }

    function showEnd(cell, story) {
        if (!cell.firstChild) {
            cell.append(ui.node("span"), ui.node("small"));
        }
        badge(cell.firstChild, story.finish_reason || "?");
        ui.setText(cell.lastChild, story.error_code);
    }

    function showId(cell, story) {
        if (!cell.firstChild) {
            var link = ui.node("a", "", story.request_id);
            link.href = page.data.request + "?id=" + ui.encode(story.request_id);
            link.title = story.request_id;
            cell.appendChild(link);
        }
    }

    var stories = new ui.Table(document.getElementById("stories"), [
        {title: "Ended", show: text(function (s) { return ui.time(s.ended_at); })},
        {title: "Request", className: "inferq-name", show: showId},
        {title: "End", show: showEnd, by: function (s) { return s.finish_reason; }},
        {title: "Attempt", end: true, show: text(function (s) { return ui.count(s.attempt + 1); }),
            by: function (s) { return s.attempt; }},
        {title: "Tokens", end: true, show: text(function (s) { return ui.count(s.tokens); }),
            by: function (s) { return s.tokens; }},
        {title: "Queue", end: true, show: text(function (s) { return ui.took(s.queue_s); }),
            by: function (s) { return s.queue_s; }},
        {title: "Prefill", end: true, show: text(function (s) { return ui.took(s.prefill_s); }),
            by: function (s) { return s.prefill_s; }},
        {title: "Transfer", end: true, show: text(function (s) { return ui.took(s.transfer_s); }),
            by: function (s) { return s.transfer_s; }},
        {title: "Decode", end: true, show: text(function (s) { return ui.took(s.decode_s); }),
            by: function (s) { return s.decode_s; }},
        {title: "KV cache", end: true, show: text(function (s) { return ui.bytes(s.kv_bytes); }),
            by: function (s) { return s.kv_bytes; }},
        {title: "Prefilled on", className: "inferq-name",
            show: text(function (s) { return s.prefill_node || s.node || ui.MISSING; })},
        {title: "Ended on", className: "inferq-name", show: text(function (s) { return s.node || ui.MISSING; })}
    ], function (s) { return s.request_id + " " + s.ended_at; }, "No request has ended yet.");

    function facts(pairs) {
        var list = document.getElementById("request-facts");
        list.replaceChildren();
        pairs.forEach(function (pair) {
            var box = ui.node("div"), term = ui.node("dt", "", pair[0]);
            if (pair[2]) {
                term.prepend(ui.node("span", "inferq-swatch inferq-" + pair[2]));
            }
            box.append(term, ui.node("dd", "", pair[1]));
            list.appendChild(box);
        });
    }

    function phases(story) {
        var bar = document.getElementById("request-phases"), sum = 0,
            parts = ["queue", "prefill", "transfer", "decode"];
        parts.forEach(function (part) {
            sum += story[part + "_s"];
        });
        bar.hidden = !sum;
        bar.replaceChildren();
        parts.forEach(function (part) {
            var seconds = story[part + "_s"];
            if (seconds > 0) {
                var piece = ui.node("div", "inferq-" + part);
                piece.style.flexGrow = String(seconds / sum);
                piece.title = part + " " + ui.took(seconds);
                bar.appendChild(piece);
            }
        });
    }

    function showStory(story) {
        var crossed = Boolean(story.prefill_node) && story.prefill_node !== story.node;
        badge(document.getElementById("request-state"), story.finish_reason || "ended");
        phases(story);
        facts([
            ["Waited", ui.took(story.queue_s), "queue"],
            ["Prefill", ui.took(story.prefill_s), "prefill"],
            ["KV transfer", ui.took(story.transfer_s), "transfer"],
            ["Decode", ui.took(story.decode_s), "decode"],
            ["Answer", ui.count(story.tokens) + " tokens"],
            ["Attempt", ui.count(story.attempt + 1)],
            ["Ended", new Date(story.ended_at * 1000).toLocaleString("en-GB")],
            ["Error", story.error_code || ui.MISSING],
            ["Prefilled on", story.prefill_node || story.node || ui.MISSING],
            ["Ended on", story.node || ui.MISSING],
            ["KV cache moved", crossed ? ui.bytes(story.kv_bytes) : "no"],
            ["Protocol", story.protocol || ui.MISSING]
        ]);
        return "";
    }

    function showStatus(status) {
        badge(document.getElementById("request-state"), status.state);
        document.getElementById("request-phases").hidden = true;
        if (status.state === "unknown") {
            facts([]);
            return "No live request has this id, and none of those that ended lately had it.";
        }
        facts([["Phase", status.phase], ["Node", status.node || ui.MISSING]]);
        return status.reason;
    }

    function showRequest(said) {
        var live = ["queued", "running"].includes(said.status.state);
        document.getElementById("request").hidden = false;
        document.getElementById("request-cancel").hidden = !live;
        ui.setText(document.getElementById("request-note"),
            said.story ? showStory(said.story) : showStatus(said.status));
        // Its end does not change any more; an unknown id costs a search.
        return live ? 0 : SELDOM_MS;
    }

    if (id) {
        page.arm(document.getElementById("request-cancel"), "cancel", {id: id}, "Cancel this request?");
        page.keepAsking(function () {
            return page.data.source + "?id=" + ui.encode(id);
        }, showRequest);
    }
    page.keepAsking(function () { return page.data.source; }, function (said) {
        stories.update(said.stories);
    });
}());
