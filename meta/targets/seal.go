package targets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
)

// sealVersion begins what is sealed. Part of the format.
const sealVersion = 1

// errSealed: it was sealed with another key, for another account, or changed since. Nothing of it is told.
var errSealed = errors.New("the secret kept of the account cannot be opened: set it anew")

func sealer(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

// seal encrypts an account's secret; see the package comment.
func seal(key []byte, user string, secret []byte) ([]byte, error) {
	gcm, err := sealer(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+len(secret)+gcm.Overhead())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, err
	}
	return gcm.Seal(out, out[1:], secret, []byte(user)), nil
}

// open decrypts it.
func open(key []byte, user string, sealed []byte) ([]byte, error) {
	gcm, err := sealer(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < 1+gcm.NonceSize() || sealed[0] != sealVersion {
		return nil, errSealed
	}
	nonce, text := sealed[1:1+gcm.NonceSize()], sealed[1+gcm.NonceSize():]
	secret, err := gcm.Open(nil, nonce, text, []byte(user))
	if err != nil {
		return nil, errSealed
	}
	return secret, nil
}
