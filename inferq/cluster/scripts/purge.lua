-- uses: base queues nodes loads records work
-- Cancel what waits in a list, from its head; the origins are told.
-- ARGS: key, most, bases, counts, message, request_ttl_ms, kept_ms. Returns {'ok', how many were taken off it}.

-- The node and the phase whose own list this is; nothing for a shared one.
local function owner_of(key)
  local name = string.gsub(key, '\6\022%d$', '')
  for _, base in ipairs(ARGS.bases) do
    if string.sub(name, 1, #base + 1) == base .. '.' then return base, string.sub(name, #base + 2) end
  end
end

-- Nobody has read the id of a stock producer's message yet. In a text the quotes would be escaped.
local function tell_stock(raw)
  local id = string.match(raw, '"correlation_id": "([^"\\]+)"')
  if id and not record_of(id) then tell_origin('', id, 1000000, 'cancelled', 'cancelled', ARGS.message) end
end

local function cancel(e, raw)
  if e.id == '' then return tell_stock(raw) end
  local record = record_of(e.id)
  local verdict = standing(record, e, '')
  if not record or verdict == 'duplicate' then return end
  dismiss_holder(e.id, record)
  -- An end by somebody else than the node holds for every attempt.
  if verdict == 'live' then
    tell_origin(record.origin, unquoted(e.id), 1000000, 'cancelled', 'cancelled', ARGS.message)
  end
  end_record(e.id, record)
end

local base, node = owner_of(ARGS.key)
local raws = redis.call('RPOP', ARGS.key, ARGS.most) or {}
for _, raw in ipairs(raws) do
  local e = parse(raw)
  if base then count_waiting(base, node, e, -1) end
  cancel(e, raw)
end
write_work()
if base and incarnation(node) then note_load(base, node) end
return reply('ok', #raws)
