package apiserver_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

const ciphertextMax = 1024

// asStored returns the Decrypt request that an API server makes from an answer of Encrypt.
func asStored(sealed *service.EncryptResponse) *service.DecryptRequest {
	return &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	}
}

func encrypt(t *testing.T, client service.Service, plaintext []byte) *service.EncryptResponse {
	t.Helper()
	sealed, err := client.Encrypt(t.Context(), "encrypt", plaintext)
	if err != nil {
		t.Fatalf("Encrypt: %v", err)
	}
	return sealed
}

func requireOpens(t *testing.T, client service.Service, sealed *service.EncryptResponse, plaintext []byte) {
	t.Helper()
	opened, err := client.Decrypt(t.Context(), "decrypt", asStored(sealed))
	if err != nil || !bytes.Equal(opened, plaintext) {
		t.Fatalf("Decrypt: %d bytes of %d, %v", len(opened), len(plaintext), err)
	}
}

func roundTrip(t *testing.T, client service.Service, plaintext []byte) {
	t.Helper()
	requireOpens(t, client, encrypt(t, client, plaintext), plaintext)
}

// requireStorable requires that an answer follows the rules of the API server.
func requireStorable(t *testing.T, sealed *service.EncryptResponse) {
	t.Helper()
	object := &kmstypes.EncryptedObject{
		EncryptedData:          []byte("data"),
		KeyID:                  sealed.KeyID,
		EncryptedDEKSource:     sealed.Ciphertext,
		Annotations:            sealed.Annotations,
		EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
	}
	if err := kmsv2.ValidateEncryptedObject(object); err != nil {
		t.Error(err)
	}
}

func TestChecklist20_AnEncryptedSeedIsStorable(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		answer, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sealed := encrypt(t, client, randomBytes(32))
		requireStorable(t, sealed)
		if sealed.KeyID != answer.KeyID {
			t.Errorf("Encrypt uses key id %q, Status told %q", sealed.KeyID, answer.KeyID)
		}
	})
}

func TestChecklist21_EqualPlaintextsGiveDifferentCiphertexts(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		plaintext := randomBytes(32)
		first, second := encrypt(t, client, plaintext), encrypt(t, client, plaintext)
		if bytes.Equal(first.Ciphertext, second.Ciphertext) {
			t.Error("the same ciphertext twice")
		}
		requireOpens(t, client, first, plaintext)
		requireOpens(t, client, second, plaintext)
	})
}

func TestChecklist22_DistinctPlaintextsGiveDistinctAnswers(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		seen := map[string]bool{}
		for range 50 {
			sealed := encrypt(t, client, randomBytes(32))
			seen[fmt.Sprint(sealed.Ciphertext, sealed.KeyID, sealed.Annotations)] = true
		}
		if len(seen) != 50 {
			t.Errorf("%d answers for 50 plaintexts", len(seen))
		}
	})
}

func TestChecklist23_AnEmptyPlaintextIsRefused(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		for _, plaintext := range [][]byte{nil, {}} {
			if _, err := client.Encrypt(t.Context(), "empty", plaintext); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v", err)
			}
		}
		p.requireHealthy(t)
	})
}

func TestChecklist24_PlaintextsOfManySizes(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		for _, size := range []int{1, 16, 31, 32, 33, 64, 512, 700, 720, 750, 800, 1024, 1025, 32 << 10, 1 << 20} {
			plaintext := randomBytes(size)
			sealed, err := client.Encrypt(t.Context(), "sizes", plaintext)
			// With base64, nonce, tag and version, this is always too large.
			switch tooLarge := size > ciphertextMax*3/4; {
			case status.Code(err) == codes.InvalidArgument && size > 512:
			case err != nil:
				t.Errorf("%d bytes: %v", size, err)
			case tooLarge || len(sealed.Ciphertext) > ciphertextMax:
				t.Errorf("%d bytes give a ciphertext of %d", size, len(sealed.Ciphertext))
			default:
				requireStorable(t, sealed)
				requireOpens(t, client, sealed, plaintext)
			}
		}
	})
}

func TestChecklist25_UIDs(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		p := start(t, append(flags, "--log-level=debug"))
		client := p.client(t)
		plaintext := randomBytes(32)
		sealed := encrypt(t, client, plaintext)
		if _, err := client.Encrypt(t.Context(), "", plaintext); status.Code(err) != codes.InvalidArgument {
			t.Errorf("Encrypt without uid: %v", err)
		}
		if _, err := client.Decrypt(t.Context(), "", asStored(sealed)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("Decrypt without uid: %v", err)
		}
		hostile := "u\n{\"level\":\"ERROR\"}\r\n\x1b[2J\u2028" + strings.Repeat("x", 10_000)
		if _, err := client.Encrypt(t.Context(), hostile, plaintext); err != nil {
			t.Errorf("Encrypt: %v", err)
		}
		if opened, err := client.Decrypt(t.Context(), hostile, asStored(sealed)); err != nil || !bytes.Equal(opened, plaintext) {
			t.Errorf("Decrypt: %v", err)
		}
		// The log has the uid of failed calls too.
		sealed.Ciphertext[len(sealed.Ciphertext)-8] ^= 1
		if _, err := client.Decrypt(t.Context(), hostile, asStored(sealed)); err == nil {
			t.Error("a changed ciphertext was decrypted")
		}
		p.Stop()
		lines := strings.Split(strings.TrimRight(p.Stdout.String(), "\n"), "\n")
		if len(lines) < 5 {
			t.Errorf("only %d lines were logged", len(lines))
		}
		for _, line := range lines {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil || len(line) > 2_000 {
				t.Errorf("a line is not valid JSON: %v: %.200s", err, line)
			}
		}
	})
}

func TestChecklist27_NoSecretIsReported(t *testing.T) {
	onEachSecret(t, func(t *testing.T, flags []string, secrets map[string]string) {
		p, metrics := metered(t, append(flags, "--log-level=debug-extended"))
		client := p.client(t)
		var told strings.Builder
		tell := func(err error) { fmt.Fprintln(&told, err) }

		plaintext := []byte("canary-seed-of-exactly-32-bytes!")
		sealed := encrypt(t, client, plaintext)
		requireOpens(t, client, sealed, plaintext)
		large := bytes.Repeat(plaintext, 30)
		for _, refused := range [][]byte{large, bytes.Repeat(plaintext, 40), bytes.Repeat(plaintext, 40_000)} {
			_, err := client.Encrypt(t.Context(), "large", refused)
			tell(err)
		}
		_, err := client.Encrypt(t.Context(), "", plaintext)
		tell(err)
		for _, index := range []int{0, len(sealed.Ciphertext) / 2} {
			changed := asStored(sealed)
			changed.Ciphertext = bytes.Clone(sealed.Ciphertext)
			changed.Ciphertext[index] ^= 1
			_, err := client.Decrypt(t.Context(), "changed", changed)
			tell(err)
		}
		_, err = client.Decrypt(t.Context(), "unmarked",
			&service.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID})
		tell(err)
		scraped := string(scrape(t, metrics))
		p.Stop()

		// Otherwise the test would search an empty log.
		for text, expected := range map[string]string{
			p.Stdout.String(): `"DEBUG"`, scraped: "rpc_server_duration", told.String(): "invalid-request: ",
		} {
			if !strings.Contains(text, expected) {
				t.Errorf("%s is not in %s", expected, parts.Tail(text))
			}
		}
		secrets["the plaintext"] = string(plaintext)
		for where, text := range map[string]string{
			"stdout": p.Stdout.String(), "stderr": p.Stderr.String(), "metrics": scraped, "errors": told.String(),
		} {
			for what, secret := range secrets {
				for _, form := range forms(secret) {
					if strings.Contains(text, form) {
						t.Errorf("%s is in %s as %s", what, where, form)
					}
				}
			}
			if token := tokenShape.FindString(text); token != "" {
				t.Errorf("a token is in %s: %.8s...", where, token)
			}
		}
	})
}

// onEachSecret runs a test against every keeper, with its secrets.
func onEachSecret(t *testing.T, test func(t *testing.T, flags []string, secrets map[string]string)) {
	t.Parallel()
	t.Run("openbao", func(t *testing.T) {
		t.Parallel()
		tenant := sharedBao(t).tenant(t)
		test(t, tenant.Flags(), map[string]string{"the secret id": tenant.SecretID})
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		test(t, localFlags(t), map[string]string{})
	})
}

// forms returns the encodings in which a secret could appear. For base64 it is the part that does not depend on
// the bytes after the secret.
func forms(secret string) []string {
	bytes := []byte(secret)
	whole := bytes[:len(bytes)/3*3]
	return []string{
		secret,
		hex.EncodeToString(bytes),
		strings.ToUpper(hex.EncodeToString(bytes)),
		base64.StdEncoding.EncodeToString(whole),
		base64.URLEncoding.EncodeToString(whole),
		strings.Trim(fmt.Sprint(bytes), "[]"),
		strings.ReplaceAll(strings.Trim(fmt.Sprint(bytes), "[]"), " ", ", "),
	}
}
