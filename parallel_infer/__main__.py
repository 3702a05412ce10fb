"""`python -m parallel_infer`: the same as the command `parallel-infer`."""

from parallel_infer.cli import main

if __name__ == "__main__":
    main(prog_name="parallel-infer")
