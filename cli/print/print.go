// Package print writes what commands show: tables and lines in the style of the field's own tools, or JSON.
//
// # DESIGN
//
// Views are plain structs that the metadata servers' messages are turned into; they are the stable form: their JSON is
// what scripts read, and their text is made from nothing else. Golden files under testdata pin both.
package print

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// Table writes columns apart by spaces, without lines. Columns whose name begins with '>' are set right.
func Table(w io.Writer, header []string, rows [][]string) error {
	align := make([]tw.Align, len(header))
	titles := make([]string, len(header))
	for i, title := range header {
		align[i], titles[i] = tw.AlignLeft, title
		if title[0] == '>' {
			align[i], titles[i] = tw.AlignRight, title[1:]
		}
	}
	var text bytes.Buffer
	table := tablewriter.NewTable(&text,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
		})),
		tablewriter.WithConfig(tableConfig(align)),
	)
	table.Header(titles)
	if err := table.Bulk(rows); err != nil {
		return err
	}
	if err := table.Render(); err != nil {
		return err
	}
	return writeTrimmed(w, text.String())
}

// writeTrimmed leaves out the blanks that fill the last column.
func writeTrimmed(w io.Writer, text string) error {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n"))
	return err
}

func tableConfig(align []tw.Align) tablewriter.Config {
	padding := tw.CellPadding{Global: tw.Padding{Right: " ", Overwrite: true}}
	cell := func() tw.CellConfig {
		return tw.CellConfig{
			Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off},
			Alignment:  tw.CellAlignment{PerColumn: align},
			Padding:    padding,
		}
	}
	return tablewriter.Config{Header: cell(), Row: cell(), Behavior: tw.Behavior{TrimSpace: tw.Off}}
}

// JSON writes a view for programs.
func JSON(w io.Writer, view any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(view)
}
