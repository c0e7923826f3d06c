package iscsi

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Secret is what an account proves to know. However it is printed, logged or encoded, it does not show.
type Secret struct{ bytes []byte }

// NewSecret makes a secret of its bytes.
func NewSecret(b []byte) Secret { return Secret{append([]byte(nil), b...)} }

const hidden = "(secret)"

// String hides the secret.
func (Secret) String() string { return hidden }

// Format hides the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

func (s Secret) equal(o Secret) bool { return subtle.ConstantTimeCompare(s.bytes, o.bytes) == 1 }
