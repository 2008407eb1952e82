package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
)

// The only credentials that the server accepts.
const (
	accessKey = "AKIDEXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// refusedSignature returns the error of AWS for the signature of a request, or "". It follows the
// documentation of Signature Version 4.
func refusedSignature(r *http.Request, body []byte) string {
	given := r.Header.Get("Authorization")
	field := func(name string) string {
		_, rest, _ := strings.Cut(given, name+"=")
		value, _, _ := strings.Cut(rest, ",")
		return strings.TrimSpace(value)
	}
	id, scope, _ := strings.Cut(field("Credential"), "/")
	if id != accessKey {
		return "UnrecognizedClientException"
	}
	names := strings.Split(field("SignedHeaders"), ";")
	request := []string{r.Method, "/", ""}
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		request = append(request, name+":"+strings.TrimSpace(value))
	}
	request = append(request, "", field("SignedHeaders"), hexOf(body))
	toSign := []string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hexOf([]byte(strings.Join(request, "\n")))}
	key := []byte("AWS4" + secretKey)
	for _, part := range append(strings.Split(scope, "/"), strings.Join(toSign, "\n")) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(field("Signature"))) {
		return "InvalidSignatureException"
	}
	return ""
}

func hexOf(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return hex.EncodeToString(sum[:])
}
