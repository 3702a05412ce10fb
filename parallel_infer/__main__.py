from parallel_infer.cli import main

if __name__ == "__main__":
    main(prog_name="parallel-infer")
