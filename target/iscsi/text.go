package iscsi

import (
	"bytes"
	"strconv"
	"strings"
)

// Limits of text.
const (
	maxText     = 64 << 10 // bytes of one login or text negotiation, all its PDUs together
	maxKey      = 63
	maxValue    = 8191
	maxTextKeys = 128
)

// pair is one key=value.
type pair struct{ key, value string }

// parseText takes the pairs from the data segment of a login or text request. It refuses what is not text in the form
// of RFC 7143, 6.1: strict, since a target that guesses is a target that is fooled.
func parseText(b []byte) ([]pair, error) {
	var out []pair
	for len(b) > 0 {
		end := bytes.IndexByte(b, 0)
		if end < 0 {
			return nil, errText
		}
		if end == 0 { // padding, or a doubled end: nothing between
			b = b[1:]
			continue
		}
		key, value, ok := strings.Cut(string(b[:end]), "=")
		if !ok || !validKey(key) || len(value) > maxValue || len(out) == maxTextKeys {
			return nil, errText
		}
		out = append(out, pair{key, value})
		b = b[end+1:]
	}
	return out, nil
}

func validKey(key string) bool {
	if key == "" || len(key) > maxKey {
		return false
	}
	for _, c := range []byte(key) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune(".-+@_#", rune(c)) {
			return false
		}
	}
	return true
}

func appendPair(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// parseNumber takes decimal, 0x or 0X constants.
func parseNumber(s string) (uint64, bool) {
	base := 10
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		s, base = s[2:], 16
	}
	if s == "" || s[0] == '+' || strings.Contains(s, "_") {
		return 0, false
	}
	v, err := strconv.ParseUint(s, base, 64)
	return v, err == nil
}
