// Server runs local-kms on the loopback interface and adds the rules of AWS KMS that local-kms lacks:
// signatures, and checks of the ciphertext. It prints its URL in one line.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"

	"github.com/nsmithuk/local-kms/src"
	"github.com/nsmithuk/local-kms/src/config"
	"github.com/nsmithuk/local-kms/src/data"
)

const (
	region  = "eu-west-1"
	account = "111122223333"
)

// fault is the answer to every call while a test asks for it. The status 0 means no answer.
type fault struct {
	status int
	code   string
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	folder := flag.String("data", "", "folder of the keys")
	authority := flag.String("tls", "", "file for the certificate of the server; empty: HTTP")
	attached := flag.Bool("attached", false, "end when standard input ends")
	flag.Parse()
	config.AWSRegion, config.AWSAccountId = region, account

	keys := data.NewDatabase(*folder)
	listener, err := net.Listen("tcp", *listen)
	must(err)
	url := "http://" + listener.Addr().String()
	if *authority != "" {
		own, text := certificate()
		must(os.WriteFile(*authority, text, 0o644))
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{own}})
		_, port, err := net.SplitHostPort(listener.Addr().String())
		must(err)
		url = "https://localhost:" + port
	}
	go func() { must(http.Serve(listener, handler(keys))) }()
	fmt.Println(url)
	if !*attached {
		select {}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	must(err)
}

// handler passes requests with a valid signature to local-kms.
func handler(keys *data.Database) http.Handler {
	var failing atomic.Pointer[fault]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.URL.Path == "/new-key" {
			newKey(w, keys)
			return
		}
		if r.URL.Path == "/fault" {
			var next fault
			if _, err := fmt.Sscanf(r.URL.RawQuery, "%d,%s", &next.status, &next.code); err == nil {
				failing.Store(&next)
			} else {
				failing.Store(nil)
			}
			return
		}
		if now := failing.Load(); now != nil {
			if now.status == 0 {
				<-r.Context().Done()
				return
			}
			refuse(w, now.status, now.code)
			return
		}
		if code := refusedSignature(r, body); code != "" {
			refuse(w, http.StatusBadRequest, code)
			return
		}
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".Decrypt") {
			if code := refusedBlob(body); code != "" {
				refuse(w, http.StatusBadRequest, code)
				return
			}
		}
		w.Header().Set("X-Amzn-Requestid", uuid())
		r.Body = io.NopCloser(bytes.NewReader(body))
		src.HandleRequest(w, r, keys)
	})
}

// newKey makes a symmetric key and writes its ARN to w.
func newKey(w http.ResponseWriter, keys *data.Database) {
	request := httptest.NewRequest("POST", "/", strings.NewReader("{}"))
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "TrentService.CreateKey")
	made := httptest.NewRecorder()
	src.HandleRequest(made, request, keys)
	var answer struct{ KeyMetadata struct{ Arn string } }
	must(json.Unmarshal(made.Body.Bytes(), &answer))
	fmt.Fprint(w, answer.KeyMetadata.Arn)
}

// refusedBlob returns the error of AWS KMS for the ciphertext of a Decrypt, or "". local-kms panics on
// a short ciphertext, and does not compare its key with the key of the request.
func refusedBlob(body []byte) string {
	var asked struct {
		KeyId          string
		CiphertextBlob []byte
	}
	if json.Unmarshal(body, &asked) != nil {
		return "SerializationException"
	}
	// The length of the ARN, the ARN, four bytes of version, a nonce of 12, a tag of 16.
	blob := asked.CiphertextBlob
	if len(blob) == 0 || len(blob) < 1+int(blob[0])+4+12+16 {
		return "InvalidCiphertextException"
	}
	if arn := string(blob[1 : 1+int(blob[0])]); asked.KeyId != "" && asked.KeyId != arn {
		return "IncorrectKeyException"
	}
	return ""
}

// uuid returns a random identifier in the form of a UUID.
func uuid() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	return fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"__type":%q,"message":"as the test asked"}`, code)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
