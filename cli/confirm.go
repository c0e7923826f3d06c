package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// confirm asks before something is destroyed. Without a terminal there is nobody to ask; what would be lost is said all the same.
func (a *app) confirm(question, flags string) error {
	if !a.interactive {
		fmt.Fprintln(a.err, question)
		return coded(exitRefused, fmt.Errorf("not confirmed, and there is no terminal to ask on: give %s if you mean it", flags))
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return coded(exitRefused, errors.New("not confirmed; nothing was done"))
}

// maxPassword bounds a password file: a wrong path must not be read to its end.
const maxPassword = 1024

// password comes from a file, else from a prompt if ask (asked for twice if it is a new one), else it is empty.
func (a *app) password(ask bool, file string, isNew bool) (string, error) {
	switch {
	case file != "":
		return readPasswordFile(file)
	case !ask:
		return "", nil
	case !a.interactive:
		return "", usagef("-p asks for the password, but there is no terminal: give --password-file")
	}
	first, err := a.prompt("Please enter password for cluster: ")
	if err != nil {
		return "", err
	}
	if !isNew {
		return checkPassword(first)
	}
	second, err := a.prompt("Verify password: ")
	if err != nil {
		return "", err
	}
	if !bytes.Equal(first, second) {
		return "", usagef("the two passwords differ")
	}
	return checkPassword(first)
}

func (a *app) prompt(text string) ([]byte, error) {
	fmt.Fprint(a.err, text)
	defer fmt.Fprintln(a.err)
	return a.readPassword()
}

func readPasswordFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPassword+2))
	if err != nil {
		return "", err
	}
	return checkPassword(bytes.TrimRight(text, "\r\n"))
}

func checkPassword(text []byte) (string, error) {
	if len(text) == 0 || len(text) > maxPassword {
		return "", usagef("a password has 1 to %d bytes", maxPassword)
	}
	return string(text), nil
}
