-- Shared by the scripts that count: numbers as JavaScript and JSON have them.
local function is_number(text)
  return string.find(text, '^%-?%d+%.?%d*[eE]?[%+%-]?%d*$') and not string.find(text, '^%-?0%d')
    and not string.find(text, '%.$') and not string.find(text, '%.[eE]') and tonumber(text) ~= nil
end
-- The shortest text that reads back as the same number; nil where it is not finite.
local function number_text(number)
  if number ~= number or number == math.huge or number == -math.huge then
    return nil
  end
  if number == math.floor(number) and math.abs(number) <= 9007199254740992 then
    return string.format('%.0f', number)
  end
  for digits = 15, 17 do
    local text = string.format('%.' .. digits .. 'g', number)
    if tonumber(text) == number then
      return text
    end
  end
end
