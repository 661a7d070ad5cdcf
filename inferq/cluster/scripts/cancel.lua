-- uses: base nodes records
-- End a live request, wherever it is. ARGS: id (quoted), origin ('' for anybody's), holder (the incarnation that must be
-- computing its other half, or ''), tell (whether the origin must hear of it), reason, code, message, request_ttl_ms.
-- Returns {'unknown'}, {'queued'} or {'running'}.
local record = record_of(ARGS.id)
if has_ended(record) then return reply('unknown') end
if ARGS.origin ~= '' and ARGS.origin ~= record.origin then return reply('unknown') end
if ARGS.holder ~= '' and ARGS.holder ~= record.holder then return reply('unknown') end
-- A request that was cancelled before still names the node that runs it.
local running = record.inc ~= '' and alive(record.inc)
local request_id = unquoted(ARGS.id)
dismiss_holder(ARGS.id, record)
record.state = 'c'
save_record(ARGS.id, record)
if running then ring(record.inc, cjson.encode({ 'cancel', request_id })) end
-- A stock producer hears of it from the node, or from nobody else.
if ARGS.tell or not running and not stream_of(record.origin, request_id) then
  -- An end by somebody else than the node holds for every attempt.
  tell_origin(record.origin, request_id, 1000000, ARGS.reason, ARGS.code, ARGS.message)
end
return reply(running and 'running' or 'queued')
