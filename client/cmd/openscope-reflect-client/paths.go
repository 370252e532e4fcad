package main

import (
	"os"
	"path/filepath"
	"runtime"
)

// configDir is the user's folder for keys and known daemons, as the platform has
// it: XDG_CONFIG_HOME or ~/.config, Application Support, AppData.
func configDir(getenv func(string) string) string {
	return configDirOn(runtime.GOOS, getenv)
}

// stateDir is the user's folder for what may be lost: the history. On Linux it is
// XDG_STATE_HOME or ~/.local/state; other platforms do not tell it from the rest.
func stateDir(getenv func(string) string) string {
	return stateDirOn(runtime.GOOS, getenv)
}

const folder = "openscope"

func configDirOn(system string, getenv func(string) string) string {
	home := homeOn(system, getenv)
	switch {
	case filepath.IsAbs(getenv("XDG_CONFIG_HOME")) && system != "windows":
		return filepath.Join(getenv("XDG_CONFIG_HOME"), folder)
	case system == "windows" && getenv("AppData") != "":
		return filepath.Join(getenv("AppData"), folder)
	case home == "":
		return folder // beside where it was started: there is nowhere else
	case system == "windows":
		return filepath.Join(home, "AppData", "Roaming", folder)
	case system == "darwin":
		return filepath.Join(home, "Library", "Application Support", folder)
	}
	return filepath.Join(home, ".config", folder)
}

func stateDirOn(system string, getenv func(string) string) string {
	home := homeOn(system, getenv)
	switch {
	case filepath.IsAbs(getenv("XDG_STATE_HOME")) && system != "windows":
		return filepath.Join(getenv("XDG_STATE_HOME"), folder)
	case system == "windows" && getenv("LocalAppData") != "":
		return filepath.Join(getenv("LocalAppData"), folder)
	case home == "" || system == "darwin":
		return configDirOn(system, getenv)
	case system == "windows":
		return filepath.Join(home, "AppData", "Local", folder)
	}
	return filepath.Join(home, ".local", "state", folder)
}

func homeOn(system string, getenv func(string) string) string {
	if system == "windows" {
		return getenv("UserProfile")
	}
	if home := getenv("HOME"); home != "" || system != runtime.GOOS {
		return home
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return home
}
