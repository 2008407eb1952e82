package suite

import (
	"context"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// drawBound limits the time of Chromium for one page.
const drawBound = time.Minute

// Page is a page in Chromium, as a person sees it. The variable CHROMIUM names the program.
type Page struct {
	T   *testing.T
	URL string
}

// Text returns the page as Chromium has read it.
func (p Page) Text() string {
	p.T.Helper()
	return p.ask("--dump-dom")
}

// ask runs Chromium on the page and returns its output.
func (p Page) ask(flags ...string) string {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(p.T.Context(), parts.Stretched(drawBound))
	defer cancel()
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + p.T.TempDir(), "--window-size=1200,900",
	}, flags...)
	command := exec.CommandContext(ctx, Needed(p.T, "CHROMIUM"), append(args, p.URL)...)
	var told strings.Builder
	command.Stderr = &told
	out, err := command.Output()
	if err != nil {
		p.T.Fatalf("chromium: %v\n%s", err, parts.Tail(told.String()))
	}
	return string(out)
}

// Screen draws the page into SCREENS, or into a directory of the test, and returns the picture.
func (p Page) Screen(name string) image.Image {
	p.T.Helper()
	dir := os.Getenv("SCREENS")
	if dir == "" {
		dir = p.T.TempDir()
	}
	Must(p.T, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, name+".png")
	p.ask("--screenshot=" + path)
	file, err := os.Open(path)
	Must(p.T, err)
	defer file.Close()
	picture, err := png.Decode(file)
	Must(p.T, err)
	return picture
}

// HasColour reports whether a pixel of the picture has exactly this colour.
func HasColour(picture image.Image, red, green, blue uint32) bool {
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
