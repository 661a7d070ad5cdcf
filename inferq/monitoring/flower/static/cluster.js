/* The Cluster page. */
/* global inferqTables, inferqPage */
(function () {
    "use strict";

    var ui = inferqTables, page = inferqPage, filter = document.getElementById("nodes-filter"),
        STATES = {
            ready: "text-bg-success", starting: "text-bg-info", draining: "text-bg-warning",
            drained: "text-bg-warning", lost: "text-bg-danger"
        };

    function text(get) {
        return function (cell, row) {
            ui.setText(cell, get(row));
        };
    }

    /* A cell with two lines, made once. */
    function lines(cell) {
        if (!cell.firstChild) {
            cell.append(ui.node("div", "inferq-name"), ui.node("small"));
        }
        return cell.children;
    }

    function stateOf(node) {
        return !node.live && node.state !== "gone" ? "lost" : node.state;
    }

    function used(node) {
        return Math.max(0, node.total_blocks - node.free_blocks);
    }

    function share(node) {
        return node.total_blocks ? used(node) / node.total_blocks : 0;
    }

    function showName(cell, node) {
        if (!cell.firstChild) {
            var link = ui.node("a", "", node.name), first = ui.node("div", "inferq-name");
            link.href = page.data.worker + ui.encode(node.name);
            link.title = node.name;
            first.appendChild(link);
            cell.append(first, ui.node("small"));
        }
        ui.setText(cell.lastChild, node.host);
        ui.setClass(cell.parentNode, node.live ? "" : "inferq-away");
    }

    function showState(cell, node) {
        var state = stateOf(node);
        if (!cell.firstChild) {
            cell.appendChild(ui.node("span"));
        }
        ui.setText(cell.firstChild, state || "?");
        ui.setClass(cell.firstChild, "badge " + (STATES[state] || "text-bg-secondary"));
    }

    function showBlocks(cell, node) {
        if (!cell.firstChild) {
            var bar = ui.node("div", "inferq-bar");
            bar.appendChild(ui.node("div"));
            cell.append(bar, ui.node("small"));
        }
        var fill = cell.firstChild.firstChild;
        fill.style.width = Math.min(100, 100 * share(node)).toFixed(1) + "%";
        ui.setClass(fill, share(node) > 0.9 ? "inferq-bar-high" : "");
        ui.setText(cell.lastChild, ui.count(used(node)) + " of " + ui.count(node.total_blocks));
    }

    function showQueued(cell, node) {
        var oldest = node.oldest_s === null ? "" : " (" + ui.age(node.oldest_s) + ")";
        ui.setText(cell, node.queued ? ui.count(node.queued) + oldest : "0");
    }

    function showEngine(cell, node) {
        var line = lines(cell);
        ui.setText(line[0], node.engine);
        ui.setText(line[1], node.version);
        cell.title = node.engine + " " + node.version;
    }

    function showNodeActions(cell, node) {
        var wanted = !node.live ? "" : node.state === "ready" ? "drain" : "resume";
        if (node.live && node.state === "starting") {
            wanted = "";
        }
        if (cell.dataset.shows !== wanted) {
            cell.dataset.shows = wanted;
            cell.replaceChildren();
            if (wanted === "drain") {
                cell.append(page.button("Drain", "btn-outline-primary", "drain", {node: node.name}));
            } else if (wanted === "resume") {
                cell.append(page.button("Resume", "btn-primary", "resume", {node: node.name}));
            }
        }
    }

    var nodes = new ui.Table(document.getElementById("nodes"), [
        {title: "Node", show: showName, by: function (n) { return n.name; }},
        {title: "Role", show: text(function (n) { return n.role; }), by: function (n) { return n.role; }},
        {title: "State", show: showState, by: stateOf},
        {title: "Lease", end: true, hint: "until it lapses; negative: it has lapsed",
            show: text(function (n) { return ui.age(n.lease_s); })},
        {title: "Load", end: true, hint: "requests it has to do: queued and claimed",
            show: text(function (n) { return ui.count(n.load); }), by: function (n) { return n.load; }},
        {title: "KV blocks", show: showBlocks, by: share},
        {title: "Running", end: true, hint: "requests in its engine",
            show: text(function (n) { return ui.count(n.running); }), by: function (n) { return n.running; }},
        {title: "Queued", end: true, hint: "in its own queues, with the age of the oldest",
            show: showQueued, by: function (n) { return n.queued; }},
        {title: "Stolen in / out", end: true, hint: "requests it took from others, and others from it",
            show: text(function (n) { return ui.count(n.stole) + " / " + ui.count(n.stolen); }),
            by: function (n) { return n.stole + n.stolen; }},
        {title: "Tokens/s", end: true, show: text(function (n) { return ui.short(n.tokens_per_s); }),
            by: function (n) { return n.tokens_per_s; }},
        {title: "TTFT ms", end: true, hint: "time to first token: 50th / 99th percentile",
            show: text(function (n) { return ui.percentiles(n.ttft_ms); }),
            by: function (n) { return n.ttft_ms[1] || 0; }},
        {title: "TPOT ms", end: true, hint: "time per output token: 50th / 99th percentile",
            show: text(function (n) { return ui.percentiles(n.tpot_ms); }),
            by: function (n) { return n.tpot_ms[1] || 0; }},
        {title: "Engine", show: showEngine, by: function (n) { return n.engine; }},
        {title: "", end: true, show: showNodeActions}
    ], function (n) { return n.name; }, "No node has joined this topic.");

    function showQueueOwner(cell, queue) {
        ui.setText(cell, !queue.node ? "all nodes" : queue.orphaned ? "nobody: its node is gone" : "its node");
        ui.setClass(cell, queue.orphaned ? "text-danger" : "");
    }

    var queues = new ui.Table(document.getElementById("queues"), [
        {title: "Queue", className: "inferq-name", by: function (q) { return q.name; },
            show: function (cell, q) {
                ui.setText(cell, q.name);
                cell.title = q.name;
            }},
        {title: "Phase", show: text(function (q) { return q.phase; })},
        {title: "Served by", show: showQueueOwner},
        {title: "Waiting", end: true, show: text(function (q) { return ui.count(q.length); }),
            by: function (q) { return q.length; }},
        {title: "Oldest", end: true, show: text(function (q) { return ui.age(q.oldest_s); }),
            by: function (q) { return q.oldest_s || 0; }}
    ], function (q) { return q.name; }, "There are no queues.");

    async function showLetter(id) {
        var box = document.getElementById("letter"), said;
        try {
            said = await page.read(page.data.letter + "?id=" + ui.encode(id));
            said = said.letter ? said.letter.text : said.error || "There is no such letter any more.";
        } catch (failure) {
            said = failure.message;
        }
        box.textContent = id + "\n" + said;
        box.hidden = false;
    }

    function showLetterActions(cell, letter) {
        if (cell.firstChild) {
            return;
        }
        var look = ui.node("button", "btn btn-sm btn-outline-secondary", "Show");
        look.type = "button";
        look.addEventListener("click", function () {
            showLetter(letter.id);
        });
        cell.append(
            look,
            page.button("Requeue", "btn-outline-primary", "requeue", {id: letter.id}),
            page.button("Drop", "btn-outline-danger", "drop", {id: letter.id},
                "Drop this dead letter? It cannot be brought back.")
        );
    }

    var letters = new ui.Table(document.getElementById("letters"), [
        {title: "Age", show: text(function (l) { return ui.age(Math.max(0, Date.now() / 1000 - l.at)); }),
            by: function (l) { return -l.at; }},
        {title: "Reason", show: function (cell, l) {
            var line = lines(cell);
            ui.setText(line[0], l.reason);
            ui.setText(line[1], l.detail);
            cell.title = l.detail;
        }, by: function (l) { return l.reason; }},
        {title: "Request", className: "inferq-name", show: function (cell, l) {
            ui.setText(cell, l.request_id || ui.MISSING);
            cell.title = l.request_id;
        }},
        {title: "Queue", className: "inferq-name", show: text(function (l) { return l.queue; }),
            by: function (l) { return l.queue; }},
        {title: "Node", className: "inferq-name", show: text(function (l) { return l.node || ui.MISSING; })},
        {title: "Attempts", end: true, show: text(function (l) { return ui.count(l.attempts); })},
        {title: "Size", end: true, show: text(function (l) { return ui.bytes(l.bytes); }),
            by: function (l) { return l.bytes; }},
        {title: "", end: true, show: showLetterActions}
    ], function (l) { return l.id; }, "There are no dead letters.");

    filter.addEventListener("input", function () {
        var wanted = filter.value.trim().toLowerCase();
        nodes.filter = wanted && function (n) {
            return [n.name, n.role, stateOf(n), n.engine, n.host].join(" ").toLowerCase().includes(wanted);
        };
        nodes.draw();
    });

    function total(name, value) {
        ui.setText(document.getElementById("total-" + name), value);
    }

    page.keepAsking(function () { return page.data.source; }, function (said) {
        var totals = said.totals, blocks = totals.total_blocks;
        total("live", totals.live + (totals.live < totals.nodes ? " of " + totals.nodes : ""));
        total("running", ui.count(totals.running));
        total("waiting", ui.count(totals.waiting));
        total("tokens", ui.short(totals.tokens_per_s));
        total("kv", blocks ? Math.round(100 * (1 - totals.free_blocks / blocks)) + " %" : ui.MISSING);
        total("letters", ui.count(totals.letters));
        nodes.update(said.nodes, said.nodes_left_out);
        queues.update(said.queues, said.queues_left_out);
        letters.update(said.letters, totals.letters - said.letters.length);
    });
}());
