// Package pages_test opens /statusz in Chromium, as a person does.
package pages_test

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const (
	// drawBound limits the time of Chromium for one page.
	drawBound = time.Minute
	// changeBound limits the time until the provider shows a change.
	changeBound = 30 * time.Second
)

var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

func TestMain(m *testing.M) { suite.Main(m, 1, shared.End) }

// browser draws pages.
type browser struct {
	t       *testing.T
	program string
	url     string
}

// ask runs Chromium on the page and returns its output.
func (b browser) ask(flags ...string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), parts.Stretched(drawBound))
	defer cancel()
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + b.t.TempDir(), "--window-size=1200,900",
	}, flags...)
	command := exec.CommandContext(ctx, b.program, append(args, b.url)...)
	var told strings.Builder
	command.Stderr = &told
	out, err := command.Output()
	if err != nil {
		b.t.Fatalf("chromium: %v\n%s", err, parts.Tail(told.String()))
	}
	return string(out)
}

// screen draws the page into SCREENS, or into a directory of the test, and returns the picture.
func (b browser) screen(name string) image.Image {
	b.t.Helper()
	dir := os.Getenv("SCREENS")
	if dir == "" {
		dir = b.t.TempDir()
	}
	suite.Must(b.t, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, name+".png")
	b.ask("--screenshot=" + path)
	file, err := os.Open(path)
	suite.Must(b.t, err)
	defer file.Close()
	picture, err := png.Decode(file)
	suite.Must(b.t, err)
	return picture
}

// has reports whether a pixel of the picture has exactly this colour.
func has(picture image.Image, red, green, blue uint32) bool {
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			if r>>8 == red && g>>8 == green && b>>8 == blue {
				return true
			}
		}
	}
	return false
}

// read returns the text of the page, or an empty text while it does not answer.
func read(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

// TestStatuszAsAPersonSeesIt expects the colour of the state, the next event in minutes, and a link to the
// document.
func TestStatuszAsAPersonSeesIt(t *testing.T) {
	tenant, err := shared.Use(t).NewTenant(parts.RandomName(), suite.ShortDir(t), 3600, parts.UseOfKey...)
	suite.Must(t, err)
	suite.Must(t, tenant.MakeKey())
	port := parts.FreePort()
	endpoint := "unix://" + filepath.Join(suite.ShortDir(t), "kms.sock")
	flags := append(tenant.Flags(), fmt.Sprintf("--metrics-port=%d", port), "--health-port=0",
		"--rotation-delay=59m59s", "--outage-grace=1s")
	process, err := parts.Way{}.Start("plugin", append([]string{
		suite.Needed(t, "PROVIDER"), "--listen-address=" + endpoint}, flags...))
	suite.Must(t, err)
	t.Cleanup(func() { process.Stop() })
	b := browser{t, suite.Needed(t, "CHROMIUM"), fmt.Sprintf("http://127.0.0.1:%d/statusz", port)}
	shows := func(text string) {
		t.Helper()
		if !parts.Eventually(parts.Stretched(changeBound), func() bool { return strings.Contains(read(b.url), text) }) {
			t.Fatalf("the page does not show %q:\n%s", text, read(b.url))
		}
		if page := b.ask("--dump-dom"); !strings.Contains(page, text) {
			t.Errorf("Chromium does not show %q:\n%s", text, page)
		}
	}

	shows("no change is due.")
	if !has(b.screen("healthy"), 0x00, 0x66, 0x00) {
		t.Error("a healthy provider is not shown in green")
	}
	suite.Must(t, tenant.Rotate())
	shows("version 2 writes in 59 min, on all nodes at the same instant.")
	if !has(b.screen("rotated"), 0x88, 0x55, 0x00) {
		t.Error("a version that waits is not shown in amber")
	}
	suite.Must(t, tenant.Forbid())
	shows("docs/failure-modes.md#permission-denied")
	if !has(b.screen("denied"), 0xaa, 0x00, 0x00) {
		t.Error("a provider that fails is not shown in red")
	}
}
