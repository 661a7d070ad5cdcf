-- The admission rule: what a node has room for. routing/admission.py says the same in Python, and
-- a test compares them. `room` is what is left in this look:
-- {slots, blocks, tokens, prefills, longs, idle, chunked, block_size, reserved, total_blocks, long_from, longest}

local room = ARGS.room
-- Without a size a message is taken for English in JSON and base64: about 5 bytes a token.
local BYTES_PER_TOKEN = 5
local USUAL_ANSWER = 128

-- Tokens of the prompt and of the answer.
local function sizes(e)
  local prompt = e.prompt > 0 and e.prompt or math.max(1, math.floor(#e.rest / BYTES_PER_TOKEN))
  return prompt, e.answer > 0 and e.answer or USUAL_ANSWER
end

local function blocks_of(prompt)
  return math.min(math.ceil(prompt / room.block_size) + room.reserved, room.total_blocks)
end

local function fits(prompt)
  if room.slots < 1 or blocks_of(prompt) > room.blocks then return false end
  if not room.chunked then return room.idle or prompt <= room.tokens end
  return room.prefills > 0 and (room.longs > 0 or prompt <= room.long_from)
end

local function spend(prompt)
  room.slots = room.slots - 1
  room.blocks = room.blocks - blocks_of(prompt)
  room.tokens = room.tokens - prompt
  room.prefills = room.prefills - 1
  if prompt > room.long_from then room.longs = room.longs - 1 end
  room.idle = false
end
