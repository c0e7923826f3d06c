package iscsi

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
)

// chap is the authentication of one login (RFC 7143, 12.1.3; RFC 1994):
//
//	initiator                        target
//	AuthMethod=CHAP,...              AuthMethod=CHAP
//	CHAP_A=7,5                       CHAP_A=7  CHAP_I=id  CHAP_C=challenge
//	CHAP_N=user  CHAP_R=response
//	  and, to have the target prove itself too,
//	CHAP_I=id    CHAP_C=challenge    CHAP_N=target's user  CHAP_R=response
//
// The target answers a challenge only when the initiator's own response was right, so it cannot be used to learn responses;
// and a challenge that is the target's own, or a secret that is good for both directions, is refused: so a response
// cannot be sent back to where it came from.
type chap struct {
	wanted    bool // the initiator has to authenticate itself
	chosen    bool // AuthMethod=CHAP was answered
	done      bool
	asked     bool // CHAP_A came
	algorithm int
	id        byte
	challenge []byte
	user      string // that was proven

	// of the initiator's answer
	name, response        string
	theirID, theirs       string
	named, responded      bool
	identified, countered bool
}

const (
	challengeSize = 16
	// maxChallenge is the longest that is taken (RFC 7143, 12.1.3).
	maxChallenge = 1024
)

// digests are the algorithms of CHAP, by number.
var digests = map[int]func() hash.Hash{
	5: md5.New,
	6: sha1.New,
	7: sha256.New,
	8: func() hash.Hash { return sha3.New256() },
}

var errCHAP = errors.New("authentication failed")

// open reports whether the authentication is under way.
func (c *chap) open() bool { return c.chosen && !c.done }

// key takes one of CHAP's keys and returns whether it is one.
func (c *chap) key(key, value string) bool {
	switch key {
	case "CHAP_A":
		c.choose(value)
	case "CHAP_N":
		c.name, c.named = value, true
	case "CHAP_R":
		c.response, c.responded = value, true
	case "CHAP_I":
		c.theirID, c.identified = value, true
	case "CHAP_C":
		c.theirs, c.countered = value, true
	default:
		return false
	}
	return true
}

// choose takes the first algorithm of the list that there is.
func (c *chap) choose(list string) {
	c.asked, c.algorithm = true, 0
	for _, a := range strings.Split(list, ",") {
		n, err := strconv.Atoi(a)
		if err == nil && digests[n] != nil && c.algorithm == 0 {
			c.algorithm = n
		}
	}
}

// proceed answers what came. secret looks up a user's; mutual is what the target has for itself, for that user.
func (c *chap) proceed(answer []byte, secret func(user string) (Secret, bool), mutual func(user string) *Account) ([]byte, error) {
	switch {
	case !c.asked && !c.named && !c.responded: // the choice is still to come
		return answer, nil
	case c.algorithm == 0:
		return answer, errCHAP
	case c.challenge == nil:
		return c.ask(answer), nil
	case !c.named || !c.responded:
		return answer, errCHAP
	}
	s, known := secret(c.name)
	if !known { // an unknown user takes as long as a known one
		s = NewSecret(c.challenge)
	}
	response, err := binaryValue(c.response, maxChallenge)
	right := subtle.ConstantTimeCompare(response, c.digest(c.id, s, c.challenge)) == 1
	if err != nil || !known || !right {
		return answer, errCHAP
	}
	c.done, c.user = true, c.name
	if !c.identified && !c.countered {
		return answer, nil
	}
	return c.prove(answer, s, mutual(c.user))
}

func (c *chap) ask(answer []byte) []byte {
	c.challenge = make([]byte, challengeSize+1)
	rand.Read(c.challenge)
	c.id, c.challenge = c.challenge[0], c.challenge[1:]
	answer = appendPair(answer, "CHAP_A", strconv.Itoa(c.algorithm))
	answer = appendPair(answer, "CHAP_I", strconv.Itoa(int(c.id)))
	return appendPair(answer, "CHAP_C", "0x"+hex.EncodeToString(c.challenge))
}

// prove answers the initiator's challenge.
func (c *chap) prove(answer []byte, theirs Secret, mutual *Account) ([]byte, error) {
	id, ok := parseNumber(c.theirID)
	challenge, err := binaryValue(c.theirs, maxChallenge)
	switch {
	case mutual == nil, !ok, id > 255, err != nil, len(challenge) == 0:
		c.done = false
		return answer, errCHAP
	case bytes.Equal(challenge, c.challenge), mutual.Secret.equal(theirs):
		c.done = false
		return answer, errCHAP
	}
	answer = appendPair(answer, "CHAP_N", mutual.User)
	return appendPair(answer, "CHAP_R", "0x"+hex.EncodeToString(c.digest(byte(id), mutual.Secret, challenge))), nil
}

func (c *chap) digest(id byte, s Secret, challenge []byte) []byte {
	h := digests[c.algorithm]()
	h.Write([]byte{id})
	h.Write(s.bytes)
	h.Write(challenge)
	return h.Sum(nil)
}

// binaryValue decodes a value in hexadecimal (0x) or base64 (0b) form (RFC 7143, 6.1).
func binaryValue(s string, limit int) ([]byte, error) {
	if len(s) < 2 || len(s) > 2+2*limit {
		return nil, errText
	}
	var b []byte
	var err error
	switch digits := s[2:]; strings.ToLower(s[:2]) {
	case "0x":
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case "0b":
		b, err = base64.StdEncoding.DecodeString(digits)
	default:
		err = errText
	}
	if err != nil || len(b) > limit {
		return nil, errText
	}
	return b, nil
}
