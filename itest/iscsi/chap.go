package iscsi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var errTarget = errors.New("the target did not prove itself")

// authenticate goes through CHAP with SHA-256, and has the target prove itself if that is wanted.
func (s *Session) authenticate(names []string) error {
	if _, err := s.step(0, 1, append(names, "AuthMethod=CHAP")); err != nil {
		return err
	}
	asked, err := s.step(0, -1, []string{"CHAP_A=7"})
	if err != nil {
		return err
	}
	id, _ := strconv.Atoi(asked["CHAP_I"])
	challenge, err := hex.DecodeString(strings.TrimPrefix(asked["CHAP_C"], "0x"))
	if err != nil {
		return err
	}
	keys := []string{"CHAP_N=" + s.o.User, "CHAP_R=" + response(byte(id), s.o.Secret, challenge)}
	mine := make([]byte, 16)
	rand.Read(mine)
	if s.o.TargetUser != "" {
		keys = append(keys, "CHAP_I=9", "CHAP_C=0x"+hex.EncodeToString(mine))
	}
	answer, err := s.step(0, 1, keys)
	if err != nil {
		return err
	}
	if s.o.TargetUser != "" && (answer["CHAP_N"] != s.o.TargetUser || answer["CHAP_R"] != response(9, s.o.TargetPass, mine)) {
		return fmt.Errorf("%w as %s", errTarget, s.o.TargetUser)
	}
	return nil
}

func response(id byte, secret string, challenge []byte) string {
	sum := sha256.Sum256(append(append([]byte{id}, secret...), challenge...))
	return "0x" + hex.EncodeToString(sum[:])
}
