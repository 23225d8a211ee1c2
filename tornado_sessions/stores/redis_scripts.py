"""What runs inside Redis.

A script is atomic, so what a change checks still holds when it writes. Those for records
take a whole batch, and pack their answer into one string if they can: reading it piece by
piece is what costs most in a client.

The first of ARGV is a mark, with which the answer begins: so it is known to be the one to
this call. No script reaches for a key that it was not given, so they run on a cluster too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Script:
    """A Lua script, and the name by which Redis knows it once it ran."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis names scripts by SHA-1; it protects nothing here.
        sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


LOAD = Script(
    """
-- KEYS: records; ARGV: mark
-- Returns in one string: mark, size of the next, '[[{meta},[size,…]],null,"error"]', names
-- and values
local entries, parts = {}, {}
for i, key in ipairs(KEYS) do
  local hash = redis.pcall('HGETALL', key)
  if hash.err then
    entries[i] = cjson.encode(hash.err)
  elseif #hash == 0 then
    entries[i] = 'null'
  else
    local meta, sizes = {}, {}
    for j = 1, #hash, 2 do
      local name, value = hash[j], hash[j + 1]
      if string.byte(name) == 58 then
        sizes[#sizes + 1] = #name - 1
        sizes[#sizes + 1] = #value
        parts[#parts + 1] = string.sub(name, 2)
        parts[#parts + 1] = value
      else
        meta[#meta + 1] = '"' .. name .. '":' .. value
      end
    end
    entries[i] = '[{' .. table.concat(meta, ',') .. '},[' .. table.concat(sizes, ',') .. ']]'
  end
end
local packed = '[' .. table.concat(entries, ',') .. ']'
return ARGV[1] .. ' ' .. #packed .. ' ' .. packed .. table.concat(parts)
"""
)

RANGE = Script(
    """
-- KEYS: indexes; ARGV: mark, lowest and highest score, most members or -1
-- Returns {mark, member, score, …}
local found, room = {ARGV[1]}, tonumber(ARGV[4])
for _, key in ipairs(KEYS) do
  local limit = room < 0 and -1 or room - (#found - 1) / 2
  if limit == 0 then break end
  local some = redis.call(
    'ZRANGEBYSCORE', key, ARGV[2], ARGV[3], 'WITHSCORES', 'LIMIT', 0, limit)
  for _, one in ipairs(some) do found[#found + 1] = one end
end
return found
"""
)

COUNT = Script(
    """
-- KEYS: indexes; ARGV: mark, lowest and highest score
-- Returns {mark, number of members}
local number = 0
for _, key in ipairs(KEYS) do
  number = number + redis.call('ZCOUNT', key, ARGV[2], ARGV[3])
end
return {ARGV[1], number}
"""
)

COMMIT = Script(
    """
-- ARGV: mark, now, seconds of slack, channel of ends, the sizes of words, the words in one
-- string: kind of an operation, its number of keys, of arguments, and the arguments
-- Returns {mark, one letter for each operation, why an end was not published or '',
--   what the letters E and O need to say, …}
--   A applied, G gone, C conflict, E error (message),
--   O applied, and an index by principal is to follow (principal, expiry or '')
-- If the letters say it all: mark and letters, in one string
local now, slack, channel = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local said = {ARGV[1], '', ''}

local function slice(list, first, last)
  if last - first < 1000 then return {unpack(list, first, last)} end
  local part = {}
  for i = first, last do part[#part + 1] = list[i] end
  return part
end

-- A call may not have more arguments than Lua's stack holds.
local function call_with(command, key, list)
  for start = 1, #list, 1000 do
    redis.call(command, key, unpack(list, start, math.min(start + 999, #list)))
  end
end

local function read(key)
  local seen = redis.call('HMGET', key, 'expires_at', 'last_seen_at', 'token', 'principal')
  local expires = tonumber(seen[1] or '')
  return expires and expires > now and expires, tonumber(seen[2] or ''), seen[3], seen[4]
end

-- Milliseconds for PEXPIRE, to which 0 would mean "now".
local function ttl(expires)
  return math.max(1, math.ceil((tonumber(expires) - now) * 1000))
end

-- It may hold too much, never too little: entries that are long over go when it is given
-- a longer life, which is once in the slack and not each time.
local function index(key, handle, expires)
  local known = redis.call('ZSCORE', key, handle)
  if not known or tonumber(known) < tonumber(expires) then
    redis.call('ZADD', key, expires, handle)
  end
  local needed = ttl(expires) + slack * 1000
  if redis.call('PTTL', key) < needed then
    redis.call('PEXPIRE', key, needed + slack * 1000)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', now - slack))
  end
end

local operation = {}

-- keys: record, live records, index of the principal if there is one
-- handle, expires_at, then fields and values
function operation.create(keys, args)
  local handle, expires = args[1], args[2]
  if read(keys[1]) then return 'C' end
  if keys[3] then index(keys[3], handle, expires) end
  index(keys[2], handle, expires)
  redis.call('DEL', keys[1])
  call_with('HSET', keys[1], slice(args, 3, #args))
  redis.call('PEXPIRE', keys[1], ttl(expires))
  return 'A'
end

-- keys: the same
-- handle, expires_at or '', last_seen_at or '', token or '', principal whose index is
-- or will be up to date or '', number of expectations, of each field, '1' and value or
-- '0' and '', number of fields to remove, these, then fields and values
function operation.apply(keys, args)
  local handle, expires, last_seen, token, indexed = unpack(args, 1, 5)
  local old_expires, old_seen, old_token, old_principal = read(keys[1])
  if not old_expires then return 'G' end
  if token ~= '' and token ~= old_token then return 'C' end
  local at = 7
  for _ = 1, tonumber(args[6]) do
    local held = redis.call('HGET', keys[1], args[at])
    if (args[at + 1] == '1' and args[at + 2]) ~= held then return 'C' end
    at = at + 3
  end
  local removed = tonumber(args[at])
  local gone = slice(args, at + 1, at + removed)
  local set = slice(args, at + removed + 1, #args)
  local moved = expires ~= '' and tonumber(expires) > old_expires
  -- In a cluster the index was told less than what holds.
  local behind = not keys[3] and expires ~= '' and tonumber(expires) < old_expires
  if not moved then expires = string.format('%.17g', old_expires) end
  if keys[3] and (moved or indexed ~= old_principal) then index(keys[3], handle, expires) end
  if moved then
    index(keys[2], handle, expires)
    set[#set + 1] = 'expires_at'
    set[#set + 1] = expires
  end
  if last_seen ~= '' and tonumber(last_seen) > (old_seen or 0) then
    set[#set + 1] = 'last_seen_at'
    set[#set + 1] = last_seen
  end
  call_with('HSET', keys[1], set)
  call_with('HDEL', keys[1], gone)
  if moved then redis.call('PEXPIRE', keys[1], ttl(expires)) end
  local principal = old_principal
  for i = 1, removed do if gone[i] == 'principal' then principal = nil end end
  for i = 1, #set, 2 do if set[i] == 'principal' then principal = set[i + 1] end end
  local unknown = principal ~= indexed and (moved or principal ~= old_principal)
  if principal and (unknown or behind) then
    said[#said + 1] = principal
    said[#said + 1] = expires
    return 'O'
  end
  return 'A'
end

-- keys: the same; handle, principal whose index is given or '', message, token or ''
function operation.delete(keys, args)
  local handle, indexed, message, token = unpack(args)
  local live, _, old_token, principal = read(keys[1])
  if live and token ~= '' and token ~= old_token then return 'C' end
  redis.call('DEL', keys[1])
  -- Whatever is wrong with an index, the session ends.
  redis.pcall('ZREM', keys[2], handle)
  if keys[3] then redis.pcall('ZREM', keys[3], handle) end
  if not live then return 'G' end
  local told = redis.pcall('PUBLISH', channel, message)
  if type(told) == 'table' then said[3] = told.err end
  if principal and principal ~= indexed then
    said[#said + 1] = principal
    said[#said + 1] = ''
    return 'O'
  end
  return 'A'
end

-- keys: record, live records; handle: what is over is deleted, and leaves the index of the live
function operation.sweep(keys, args)
  local expires = read(keys[1])
  if expires then
    redis.call('ZADD', keys[2], string.format('%.17g', expires), args[1])
    return 'C'
  end
  redis.call('ZREM', keys[2], args[1])
  return redis.call('DEL', keys[1]) == 1 and 'A' or 'G'
end

-- keys: index of a principal
-- handle, expires_at: kept for longer, so that it may miss to hear of a longer life once
function operation.index(keys, args)
  local expires = tonumber(args[2])
  local kept = expires + math.max(expires - now, slack)
  index(keys[1], args[1], string.format('%.17g', kept))
  return 'A'
end

-- keys: index of a principal
-- handle, the score that it had or '': then it stays if it was moved since
function operation.unindex(keys, args)
  local score = redis.call('ZSCORE', keys[1], args[1])
  if score and (args[2] == '' or tonumber(score) == tonumber(args[2])) then
    redis.call('ZREM', keys[1], args[1])
  end
  return 'A'
end

-- Before Redis 7 an error begins with its place in the script, and is a line of RESP.
local function plain(said)
  return (said:gsub('^@user_script: %d+: ', ''):gsub('^%-', ''):gsub('[\\r\\n]+$', ''))
end
local words, start = {}, 1
for i, size in ipairs(cjson.decode(ARGV[5])) do
  words[i] = string.sub(ARGV[6], start, start + size - 1)
  start = start + size
end

local letters, at, key = {}, 1, 1
while at <= #words do
  local kind, n_keys, n_args = words[at], tonumber(words[at + 1]), tonumber(words[at + 2])
  local keys = slice(KEYS, key, key + n_keys - 1)
  local args = slice(words, at + 3, at + 2 + n_args)
  key, at = key + n_keys, at + 3 + n_args
  local fine, letter = pcall(operation[kind], keys, args)
  if not fine then
    local message = plain(type(letter) == 'table' and letter.err or tostring(letter))
    -- A client that learns it as an error of the whole call looks for the new master.
    if string.find(message, '^READONLY') or string.find(message, '^NOREPLICAS') then
      return redis.error_reply(message)
    end
    said[#said + 1] = message
    letter = 'E'
  end
  letters[#letters + 1] = letter
end
said[2] = table.concat(letters)
if #said == 3 and said[3] == '' then return said[1] .. ' ' .. said[2] end
return said
"""
)
