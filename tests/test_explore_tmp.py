import contextlib
import importlib
import io
import sys
import time


def test_explore(digits, digit_teacher, tmp_path_factory, monkeypatch):
    import os

    from tests.bad_input.bench import Bench
    for mod in os.environ['MODS'].split(','):
        rows=importlib.import_module(f'tests.bad_input.{mod}').ROWS
        for name,row in rows.items():
            b=Bench(tmp_path_factory.mktemp('x'), digit_teacher, digits, monkeypatch)
            err=io.StringIO(); out=''
            t=time.time()
            try:
                with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
                    row.do(b)
                out='ACCEPTED'
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt): raise
                out=f'{type(e).__name__}: {e}'
            import json; open('/tmp/out.jsonl','a').write(json.dumps([mod,name,out,err.getvalue(),str(b.folder)])+'\n')
            e=[l for l in err.getvalue().splitlines() if 'error:' in l]
            print(f'## {name} [{time.time()-t:.1f}] {out[:330]} {"STDERR "+e[-1][:250] if e else ""}'.replace('\n',' / '), file=sys.__stderr__)
