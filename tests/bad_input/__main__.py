"""Count the rows of the table by tool, and by what comes of them."""

from collections import Counter

from tests.bad_input import rows

KINDS = ('clear', 'raw', 'accepted')


def main() -> None:
    table = rows()
    for tool in dict.fromkeys(row.tool for row in table.values()):
        counts = Counter(row.kind for row in table.values() if row.tool == tool)
        print(f'{tool:18}' + ''.join(f'{counts[kind]:4} {kind}' for kind in KINDS if counts[kind]))
    counts = Counter(row.kind for row in table.values())
    print(f'{len(table)} in all: ' + ', '.join(f'{counts[kind]} {kind}' for kind in KINDS))
    for name, row in table.items():
        if row.kind == 'accepted':
            print(f'accepted: {name} ({row.reason})')


if __name__ == '__main__':
    main()
