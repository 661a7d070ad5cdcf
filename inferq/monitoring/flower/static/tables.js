/* Tables whose rows come and go; whatever they show is text, never markup. */
/* exported inferqTables */
var inferqTables = (function () {
    "use strict";

    var MISSING = "\u2014";

    function node(tag, className, text) {
        var made = document.createElement(tag);
        if (className) {
            made.className = className;
        }
        if (text !== undefined) {
            made.textContent = text;
        }
        return made;
    }

    function setText(element, text) {
        if (element.textContent !== text) {
            element.textContent = text;
        }
    }

    function setClass(element, className) {
        if (element.className !== className) {
            element.className = className;
        }
    }

    function count(value) {
        return Number(value || 0).toLocaleString("en-US");
    }

    /* Seconds for people: 3.2 s, 4 min, 2 h, 5 d. */
    function age(seconds) {
        if (seconds === null || seconds === undefined) {
            return MISSING;
        }
        var s = Math.abs(seconds), sign = seconds < 0 ? "-" : "";
        if (s < 9.95) {
            return sign + s.toFixed(1) + " s";
        }
        if (s < 120) {
            return sign + Math.round(s) + " s";
        }
        if (s < 7200) {
            return sign + Math.round(s / 60) + " min";
        }
        if (s < 172800) {
            return sign + Math.round(s / 3600) + " h";
        }
        return sign + Math.round(s / 86400) + " d";
    }

    /* A length of time that was measured: 850 µs, 12.3 ms, 1.24 s. */
    function took(seconds) {
        if (!seconds) {
            return MISSING;
        }
        if (seconds < 0.001) {
            return Math.round(seconds * 1e6) + " µs";
        }
        if (seconds < 1) {
            return (seconds * 1000).toPrecision(3) + " ms";
        }
        return seconds < 1000 ? seconds.toPrecision(3) + " s" : age(seconds);
    }

    function bytes(value) {
        var units = ["B", "KiB", "MiB", "GiB", "TiB"], at = 0;
        if (!value) {
            return MISSING;
        }
        while (value >= 1024 && at < units.length - 1) {
            value /= 1024;
            at += 1;
        }
        return (at ? value.toFixed(1) : value) + " " + units[at];
    }

    function short(value) {
        return value >= 100 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
    }

    /* [50th, 99th] percentile. */
    function percentiles(values) {
        return values && values.length === 2 ? short(values[0]) + " / " + short(values[1]) : MISSING;
    }

    /* For an address. Names may hold what is no character, and that is an error there. */
    function encode(text) {
        return encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\uFFFD"));
    }

    function time(unixSeconds) {
        var date = new Date(unixSeconds * 1000);
        return isNaN(date) ? MISSING : date.toLocaleTimeString("en-GB");
    }

    function compare(a, b) {
        if (typeof a === "number" && typeof b === "number") {
            return a - b;
        }
        return String(a).localeCompare(String(b));
    }

    /*
     * columns: [{title, end (right-aligned), hint, by (row -> what to sort by),
     *            show (td, row): fills the cell, each time anew}]
     * key: row -> what identifies it. Buttons of a row live as long as the row.
     */
    function Table(element, columns, key, empty) {
        this.body = node("tbody");
        this.columns = columns;
        this.key = key;
        this.empty = empty;
        this.lines = new Map();
        this.rows = [];
        this.sorted = null;
        this.leftOut = 0;
        this.filter = null;
        this.emptyLine = node("tr");
        this.emptyCell = node("td", "inferq-empty", empty);
        this.emptyCell.colSpan = columns.length;
        this.emptyLine.appendChild(this.emptyCell);
        element.appendChild(this.head());
        element.appendChild(this.body);
    }

    Table.prototype.head = function () {
        var table = this, head = node("thead"), line = node("tr");
        this.columns.forEach(function (column) {
            var cell = node("th", column.end ? "text-end" : "");
            cell.scope = "col";
            if (column.hint) {
                cell.title = column.hint;
            }
            if (column.by) {
                var button = node("button", "", column.title);
                button.type = "button";
                button.addEventListener("click", function () {
                    table.sortBy(column);
                });
                cell.appendChild(button);
                column.button = button;
            } else {
                cell.textContent = column.title;
            }
            line.appendChild(cell);
        });
        head.appendChild(line);
        return head;
    };

    /* Up, down, and back to the order of the server. */
    Table.prototype.sortBy = function (column) {
        var now = this.sorted;
        if (!now || now.column !== column) {
            this.sorted = {column: column, sign: column.end ? -1 : 1, last: false};
        } else if (!now.last) {
            this.sorted = {column: column, sign: -now.sign, last: true};
        } else {
            this.sorted = null;
        }
        this.draw();
    };

    Table.prototype.update = function (rows, leftOut) {
        this.rows = rows;
        this.leftOut = leftOut || 0;
        this.draw();
    };

    Table.prototype.draw = function () {
        var table = this, seen = new Set(), at = 0, sorted = this.sorted,
            rows = this.filter ? this.rows.filter(this.filter) : this.rows.slice();
        this.columns.forEach(function (column) {
            if (column.button) {
                var mark = sorted && sorted.column === column ? (sorted.sign > 0 ? " ↑" : " ↓") : "";
                setText(column.button, column.title + mark);
            }
        });
        if (sorted) {
            rows.sort(function (a, b) {
                return sorted.sign * compare(sorted.column.by(a), sorted.column.by(b));
            });
        }
        rows.forEach(function (row) {
            var name = table.key(row), line = table.lines.get(name);
            if (seen.has(name)) {
                return;
            }
            seen.add(name);
            if (!line) {
                line = node("tr");
                table.columns.forEach(function (column) {
                    line.appendChild(node("td", column.end ? "text-end" : column.className || ""));
                });
                table.lines.set(name, line);
            }
            table.columns.forEach(function (column, i) {
                column.show(line.children[i], row);
            });
            if (table.body.children[at] !== line) {
                table.body.insertBefore(line, table.body.children[at] || null);
            }
            at += 1;
        });
        this.lines.forEach(function (line, name) {
            if (!seen.has(name)) {
                line.remove();
                table.lines.delete(name);
            }
        });
        this.foot(rows.length);
    };

    Table.prototype.foot = function (shown) {
        var text = this.leftOut ? "and " + count(this.leftOut) + " more" : this.empty;
        setText(this.emptyCell, text);
        if (!shown || this.leftOut) {
            this.body.appendChild(this.emptyLine);
        } else {
            this.emptyLine.remove();
        }
    };

    return {
        MISSING: MISSING, Table: Table, age: age, bytes: bytes, count: count, encode: encode,
        node: node,
        percentiles: percentiles, setClass: setClass, setText: setText, short: short, time: time,
        took: took
    };
}());
