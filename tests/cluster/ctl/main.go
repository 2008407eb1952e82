// Command ctl starts a control plane that outlives it, reports its state, and ends it. It is the Go half of
// `cargo xtask cluster`, which builds the programs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func say(text string) { fmt.Println(text) }

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("up, down or status?")
	}
	settings := cluster.Settings{Outlive: true, Encryption: cluster.Secrets, Say: say}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	flags.StringVar(&settings.Dir, "dir", "", "folder for all files")
	if args[0] == "up" {
		flags.IntVar(&settings.Replicas, "replicas", 1, "control-plane nodes, on one etcd")
		flags.StringVar((*string)(&settings.Keeper), "keeper", string(cluster.OpenBao), "openbao or local")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is one argument too many", flags.Args())
	}
	switch args[0] {
	case "up":
		return up(settings)
	case "down":
		return cluster.End(settings.Dir, say)
	case "status":
		return status(settings.Dir)
	default:
		return fmt.Errorf("%q is not a valid command; use up, down or status", args[0])
	}
}

func up(settings cluster.Settings) error {
	if settings.Replicas < 1 || settings.Replicas > 9 {
		return errors.New("--replicas takes 1 to 9")
	}
	if settings.Keeper != cluster.OpenBao && settings.Keeper != cluster.Local {
		return errors.New("--keeper takes openbao or local")
	}
	state, err := cluster.Load(settings.Dir)
	switch {
	case err == nil && state.Alive():
		return errors.New("one runs already; see cargo xtask cluster status, or end it with cargo xtask cluster down")
	case err == nil:
		say("removing what an ended one left behind")
		if err := os.RemoveAll(settings.Dir); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	settings.Programs = cluster.Programs{
		Plugin: os.Getenv("PROVIDER"), OpenBao: os.Getenv("BAO"),
		Kubernetes: os.Getenv("KUBERNETES"), Etcd: os.Getenv("ETCD"),
	}
	began := time.Now()
	c, err := cluster.Up(settings)
	if err != nil {
		return err
	}
	if err := c.WriteEnvironment(); err != nil {
		c.Down()
		return err
	}
	fmt.Printf("ready in %.0f s; logs are in %s\n\nTo try, in this order:\n", time.Since(began).Seconds(), fromHere(settings.Dir))
	fmt.Printf("\n# addresses, tokens and programs\n. %s\n", fromHere(cluster.EnvironmentFile(settings.Dir)))
	for _, step := range c.Guide() {
		fmt.Printf("\n# %s\n%s\n", step.Why, step.Type)
	}
	fmt.Println("\nIt runs until `cargo xtask cluster down`.")
	return nil
}

// fromHere returns a path relative to the current directory, if it is below it.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(short) {
		return short
	}
	return path
}

// status prints the running processes, and the state of the plugin at each API server.
func status(dir string) error {
	state, err := cluster.Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		say("nothing runs; start one with cargo xtask cluster up")
		return nil
	}
	if err != nil {
		return err
	}
	for _, process := range state.Processes {
		how := "HAS ENDED, see " + filepath.Join(dir, process.Name+".log")
		if process.Alive() {
			how = fmt.Sprintf("runs (pid %d)", process.Pid)
		}
		fmt.Printf("%-17s %s\n", process.Name, how)
	}
	for index, access := range state.APIServers {
		a, err := parts.ReachAPIServer(access.URL, access.CAFile, access.Token)
		if err != nil {
			return err
		}
		for _, path := range []string{"/readyz", "/readyz/kms-providers"} {
			code, body, err := a.Ask("GET", path, nil)
			if err != nil {
				body = []byte(err.Error())
			}
			fmt.Printf("%-17s %s: %d %s\n", fmt.Sprintf("kube-apiserver-%d", index+1), path, code, body)
		}
	}
	return nil
}
