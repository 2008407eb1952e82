package suite

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// Typed is what a document tells one to type, and what is printed then.
type Typed struct{ Command, Printed string }

// Consoles are the console blocks of a document below docs.
func Consoles(t *testing.T, file string) (blocks [][]Typed) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	Must(t, err)
	for _, part := range strings.Split(string(text), "\n```console\n")[1:] {
		body, _, ended := strings.Cut(part, "```\n")
		if !ended || !strings.HasPrefix(body, "$ ") {
			t.Fatalf("%s: a console block is not valid: %s", file, part)
		}
		var block []Typed
		for _, line := range strings.Split(strings.TrimPrefix("\n"+body, "\n$ "), "\n$ ") {
			command, printed, _ := strings.Cut(line, "\n")
			block = append(block, Typed{command, strings.TrimSuffix(printed, "\n")})
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// matches says whether a text is as a document has it, where … stands for anything.
func matches(expected, text string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(expected), "…", ".*")
	// A document may leave out what follows the first lines.
	return regexp.MustCompile(`(?s)^` + pattern).MatchString(text)
}

// Type types the commands of a block in one shell, after a prelude, with names replaced. It fails the test
// for each command that prints something else than the document says.
func Type(t *testing.T, file string, block []Typed, prelude string, here *strings.Replacer) {
	t.Helper()
	script := prelude
	for _, step := range block {
		script += here.Replace(step.Command) + "\nprintf '\\1'\n"
	}
	out, err := parts.Command("timeout", "300", "bash", "-c", script).CombinedOutput()
	printed := strings.Split(string(out), "\x01")
	for index, step := range block {
		switch {
		case index >= len(printed)-1:
			t.Fatalf("%s: %s: %v: %s", file, step.Command, err, out)
		case !matches(here.Replace(step.Printed), strings.TrimSuffix(printed[index], "\n")):
			t.Errorf("%s: %s prints\n%s\nand not\n%s", file, step.Command, printed[index], step.Printed)
		}
	}
}
