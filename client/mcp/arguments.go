package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"openscope/client"
	"openscope/passport"
	"openscope/wire/call"
)

// arguments turns a tool's arguments into the call's parameters, pinned ones
// filled in. What it refuses the daemon would refuse too; what it lets pass the
// daemon judges.
func arguments(v passport.Verb, raw json.RawMessage) ([]call.Param, error) {
	given, err := readObject(raw)
	if err != nil {
		return nil, err
	}
	var params []call.Param
	for _, m := range given {
		p := paramOf(v, m.name)
		if p == nil {
			return nil, fmt.Errorf("%.64q is no parameter of %s", m.name, v.Name)
		}
		text, err := textOf(*p, m.value)
		if err != nil {
			return nil, fmt.Errorf("%s %w", p.Name, err)
		}
		params = append(params, call.Param{Name: p.Name, Value: text})
	}
	params = client.Fill([]passport.Verb{v}, params)
	values := make(map[string]string)
	for _, p := range v.Params {
		if p.Default != nil {
			values[p.Name] = *p.Default
		}
	}
	for _, p := range params {
		values[p.Name] = p.Value
	}
	err = passport.Grant{Verbs: []passport.Verb{v}}.Allows(v.Name, values)
	if refusal, ok := errors.AsType[*passport.Refusal](err); ok && refusal.Param != "" {
		return nil, fmt.Errorf("%s %s", refusal.Param, refusal.Reason)
	}
	if err != nil {
		return nil, err
	}
	return params, nil
}

func paramOf(v passport.Verb, name string) *passport.Param {
	for i := range v.Params {
		if v.Params[i].Name == name {
			return &v.Params[i]
		}
	}
	return nil
}

// textOf is a JSON value as the parameter's text. Nothing is converted: 5 is not
// "5", and true is not "true".
func textOf(p passport.Param, value any) (string, error) {
	switch p.Type {
	case "integer":
		n, ok := value.(json.Number)
		if !ok {
			return "", errors.New("must be an integer")
		}
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil || strconv.FormatInt(i, 10) != n.String() {
			return "", errors.New("must be an integer, written without a point or an exponent")
		}
		return n.String(), nil
	case "boolean", "flag":
		b, ok := value.(bool)
		if !ok {
			return "", errors.New("must be true or false")
		}
		return strconv.FormatBool(b), nil
	}
	s, ok := value.(string)
	if !ok {
		return "", errors.New("must be a string")
	}
	// What JSON can say and text cannot becomes this character on the way.
	if strings.ContainsRune(s, utf8.RuneError) {
		return "", errors.New("is not text")
	}
	return s, nil
}

// member is one member of an object, in the order it came.
type member struct {
	name  string
	value any
}

// readObject reads an object of plain values. A name that is there twice is
// refused, not resolved: two parsers would resolve it differently.
func readObject(raw json.RawMessage) ([]member, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("the arguments are not text")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the arguments must be an object")
	}
	var all []member
	seen := make(map[string]bool)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errors.New("the arguments are not JSON")
		}
		m := member{name: name.(string)} // within an object a decoder gives no other
		if m.value, err = dec.Token(); err != nil {
			return nil, errors.New("the arguments are not JSON")
		}
		if _, nested := m.value.(json.Delim); nested {
			return nil, fmt.Errorf("%.64q must be a plain value", m.name)
		}
		if seen[m.name] {
			return nil, fmt.Errorf("%.64q is given twice", m.name)
		}
		if seen[m.name] = true; len(all) == call.MaxParams {
			return nil, fmt.Errorf("there are more than %d arguments", call.MaxParams)
		}
		all = append(all, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("the arguments are not JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the arguments")
	}
	return all, nil
}
