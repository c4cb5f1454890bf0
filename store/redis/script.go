package redis

import "github.com/redis/go-redis/v9"

// What is atomic is a script, and all that it touches lies in one slot. An entry is
// a field of the hash of its class: "VERSION EXPIRES SEALED", both numbers in
// decimal, the second in unix nanoseconds as 19 digits, or 0. Digits of equal number
// compare as text, which a double of Lua would not do exactly.
//
// KEYS: entries of the class, head, changes, expiries of the class, classes

// nowScript leaves the time in now: as given, for tests, or as the server has it,
// which is the same for all replicas.
const nowScript = `
local now = ARGV[1]
if now == '' then
  local t = redis.call('TIME')
  now = string.format('%010d%06d000', tonumber(t[1]), tonumber(t[2]))
end
`

// changeScript goes one step on in history.
const changeScript = `
local function change(field, tag, limit, value, name)
  local seq = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 'seq', 1))
  local before = redis.call('HGET', KEYS[2], 'tag') or ''
  redis.call('HSET', KEYS[2], 'tag', tag)
  if value ~= '' then value = seq .. ' ' .. value end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', limit, seq .. '-0', 't', tag, 'p', before, 'f', field, 'v', value, 'n', name)
  return seq, value
end
`

// saveScript: now, field, class, tag, limit, version, expires, sealed, must. It answers
// {1, version} or {0, the version that is there}. Asked again, after an answer that
// was lost on the way, it answers the same and does nothing. A full server refuses the
// first change that a script makes and none of those after it: what must be begins with
// one that takes no room, and changes nothing.
var saveScript = redis.NewScript(nowScript + changeScript + `
local old, version = redis.call('HGET', KEYS[1], ARGV[2]), '0'
if old then
  local v, x, at = string.match(old, '^(%d+) (%d+) ()')
  if string.sub(old, at) == ARGV[8] then return {1, v} end
  if x == '0' or now < x then version = v end
end
if version ~= ARGV[6] then return {0, version} end
if ARGV[9] ~= '' then redis.call('HDEL', KEYS[2], '') end
local seq, value = change(ARGV[2], ARGV[4], ARGV[5], ARGV[7] .. ' ' .. ARGV[8], '')
redis.call('HSET', KEYS[1], ARGV[2], value)
redis.call('SADD', KEYS[5], ARGV[3])
if ARGV[7] == '0' then
  if old then redis.call('ZREM', KEYS[4], ARGV[2]) end
else
  redis.call('ZADD', KEYS[4], string.format('%.3f', tonumber(ARGV[7]) / 1e9), ARGV[2])
end
local dead = redis.call('ZRANGE', KEYS[4], '-inf', string.format('%.3f', tonumber(now) / 1e9), 'BYSCORE', 'LIMIT', 0, 4)
for _, f in ipairs(dead) do
  local e = redis.call('HGET', KEYS[1], f)
  local x = e and string.match(e, '^%d+ (%d+) ')
  if x and x ~= '0' and x <= now then redis.call('HDEL', KEYS[1], f) end
  if not x or x <= now then redis.call('ZREM', KEYS[4], f) end
end
return {1, seq}
`)

// deleteScript: sealed name, field, class, tag, limit. It answers whether there was one.
var deleteScript = redis.NewScript(changeScript + `
if redis.call('HDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('ZREM', KEYS[4], ARGV[2])
change(ARGV[2], ARGV[4], ARGV[5], '', ARGV[1])
return 1
`)

// headScript answers where history is, and the time.
var headScript = redis.NewScript(`
local t = redis.call('TIME')
return {redis.call('HGET', KEYS[1], 'seq') or '0', redis.call('HGET', KEYS[1], 'tag') or '', t[1], t[2]}
`)

// infoScript answers INFO of the server that has the entries.
var infoScript = redis.NewScript(`return redis.call('INFO', ARGV[1])`)
