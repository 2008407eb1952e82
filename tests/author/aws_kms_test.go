package author_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// awsKMS is a server with the API of AWS KMS over TLS, and the list of its keys.
type awsKMS struct {
	url, authority, list string
}

func startAwsKMS(t *testing.T) *awsKMS {
	t.Helper()
	dir := t.TempDir()
	aws := &awsKMS{authority: filepath.Join(dir, "authority"), list: filepath.Join(dir, "keys")}
	process, err := parts.Way{}.Start("aws-kms", []string{
		needed(t, "AWS_KMS_SERVER"), "-data=" + filepath.Join(dir, "data"), "-tls=" + aws.authority,
	})
	must(t, err)
	t.Cleanup(process.Kill)
	must(t, process.Until(func() error {
		url, _, whole := strings.Cut(process.Stdout.String(), "\n")
		if !whole {
			return fmt.Errorf("the server has not printed its URL")
		}
		aws.url = url
		return nil
	}))
	return aws
}

// rotate makes a key and appends it to the list.
func (a *awsKMS) rotate(t *testing.T) {
	t.Helper()
	authority, err := os.ReadFile(a.authority)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get(a.url + "/new-key")
	must(t, err)
	defer answer.Body.Close()
	arn, err := io.ReadAll(answer.Body)
	must(t, err)
	list, err := os.OpenFile(a.list, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer list.Close()
	_, err = fmt.Fprintf(list, "%s\n", arn)
	must(t, err)
}

// variables returns the variables of the program, with this secret access key.
func (a *awsKMS) variables(secret string) []string {
	return []string{
		"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=" + secret,
		"AWS_KUBE_KMS_AWS_KEYS_FILE=" + a.list, "SSL_CERT_FILE=" + a.authority,
	}
}

const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// The program of examples/aws-kms serves over TLS and in the sandbox. It writes with a new key after the
// test appends the key to the list.
func TestServesAKeeperFromOutsideTheWorkspace(t *testing.T) {
	t.Parallel()
	program, aws := needed(t, "AWS_KUBE_KMS"), startAwsKMS(t)
	aws.rotate(t)
	socket := "unix://" + filepath.Join(shortDir(t), "kms.sock")
	flags := []string{"--aws-endpoint=" + aws.url, "--listen-address=" + socket, "--health-port=0", "--metrics-port=0"}
	process, err := parts.Way{}.Start("aws-kube-kms", append([]string{program, "--rotation-delay=0s", "--zap-log-level=trace"}, flags...), aws.variables(secret)...)
	must(t, err)
	t.Cleanup(func() {
		if !process.Stop() {
			t.Error("the program did not end on SIGTERM")
		}
	})
	client, err := kmsv2.NewGRPCService(t.Context(), socket, "author", startBound)
	must(t, err)
	writesWith := func(version string) {
		t.Helper()
		if !parts.Eventually(startBound, func() bool {
			answer, err := client.Status(t.Context())
			return err == nil && answer.Healthz == "ok" && strings.HasPrefix(answer.KeyID, version+".")
		}) {
			t.Fatalf("Status was never ok with %s: %s", version, process.Printed())
		}
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	wrap := func(version string) *service.EncryptResponse {
		t.Helper()
		sealed, err := client.Encrypt(t.Context(), "wrap", seed)
		must(t, err)
		if !strings.HasPrefix(sealed.KeyID, version+".") {
			t.Errorf("Encrypt used %s, not %s", sealed.KeyID, version)
		}
		return sealed
	}
	writesWith("v1")
	old := wrap("v1")
	aws.rotate(t)
	writesWith("v2")
	for _, sealed := range []*service.EncryptResponse{old, wrap("v2")} {
		opened, err := client.Decrypt(t.Context(), "unwrap", &service.DecryptRequest{
			Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
		})
		if err != nil || !bytes.Equal(opened, seed) {
			t.Errorf("Decrypt of %s: %v", sealed.KeyID, err)
		}
	}
	printed := process.Printed()
	if !strings.Contains(printed, "the sandbox is in force") {
		t.Errorf("the sandbox is not in force: %s", printed)
	}
	for _, hidden := range []string{base64.StdEncoding.EncodeToString(seed), secret} {
		if strings.Contains(printed, hidden) {
			t.Error("the log contains a secret")
		}
	}
}

func TestChecksAKeeperFromOutsideTheWorkspace(t *testing.T) {
	t.Parallel()
	program, aws := needed(t, "AWS_KUBE_KMS"), startAwsKMS(t)
	aws.rotate(t)
	run := func(variables []string, flags ...string) string {
		command := parts.Command(append([]string{program}, flags...)...)
		command.Env = append(command.Env, variables...)
		out, _ := command.CombinedOutput()
		return string(out)
	}
	check := []string{"check", "--aws-endpoint=" + aws.url, "--listen-address=unix://" + filepath.Join(shortDir(t), "kms.sock")}
	expect := func(printed string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(printed, text) {
				t.Errorf("there is no %q in: %s", text, printed)
			}
		}
	}
	expect(run(aws.variables(secret), check...), "PASS  key", "PASS  binding")
	expect(run(aws.variables("another"), check...), "login-refused: AWS refuses the credentials")
	expect(run(nil, "--help"), "--aws-keys-file FILE", "Where the key is: aws-kms [aws-kms]")
	expect(run(nil, "--aws-endpoint=http://kms.example"), "--aws-keys-file (", "--aws-endpoint (", "2 configuration error(s)")
}
