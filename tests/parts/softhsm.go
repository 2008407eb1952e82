package parts

import (
	"fmt"
	"os"
	"path/filepath"
)

// Token is a token of SoftHSM.
type Token struct {
	// Flags name the token and its PIN.
	Flags []string
	// Variable names the configuration of SoftHSM. Each program that uses the token needs it.
	Variable string
}

// NewToken makes a token with a user PIN and no key. Its files are in the folder dir.
func NewToken(dir string) (*Token, error) {
	tokens, pin, configuration := filepath.Join(dir, "tokens"), filepath.Join(dir, "pin"), filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(pin, []byte("right-canary\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(configuration, fmt.Appendf(nil, "directories.tokendir = %s\n", tokens), 0o600); err != nil {
		return nil, err
	}
	token := &Token{
		Flags: []string{
			"--keeper=pkcs11", "--pkcs11-module=/usr/lib/softhsm/libsofthsm2.so", "--pkcs11-token-label=kms",
			"--pkcs11-pin-file=" + pin, "--pkcs11-needs=" + configuration, "--pkcs11-needs=" + tokens,
		},
		Variable: "SOFTHSM2_CONF=" + configuration,
	}
	return token, token.run("softhsm2-util", "--init-token", "--free", "--label=kms", "--so-pin=12345678", "--pin=right-canary")
}

// Init makes a key on the token.
func (t *Token) Init(program string) error { return t.run(t.With(program, "pkcs11", "init")...) }

// Rotate adds a version to the key.
func (t *Token) Rotate(program string) error { return t.run(t.With(program, "pkcs11", "rotate")...) }

// With returns the words of a command, then the flags of the token.
func (t *Token) With(words ...string) []string { return append(words, t.Flags...) }

func (t *Token) run(args ...string) error {
	command := Command(args...)
	command.Env = append(command.Env, t.Variable)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return nil
}
